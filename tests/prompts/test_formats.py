"""Files that are not one plain CSV: lists, other separators, JSON lines, Parquet; and files that are none of these."""

from __future__ import annotations

import datetime
import json
import random
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.concepts import Concept, ErasureTask
from erasebench.errors import UserError
from erasebench.prompts.formats import LONGEST, SUFFIXES
from erasebench.prompts.prompt_set import PromptSet
from erasebench.prompts.reader import load_prompts


def write(folder: Path, text: str | bytes, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def prompts(path: Path) -> list[str]:
    return load_prompts(path).rows.prompt.tolist()


def said(prompt_set: PromptSet, words: str) -> bool:
    return any(words in note for note in prompt_set.notes)


# Lists ---------------------------------------------------------------------------------------------------------------


def test_a_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufeffa church, "old"\n\n  a cat \r\nprompt\n\tnaïve 漢字', "list.txt")
    assert prompts(path) == ['a church, "old"', "a cat", "prompt", "naïve 漢字"]
    assert load_prompts(path).rows.prompt_id.tolist() == ["1", "2", "3", "4"]
    assert said(load_prompts(path), "no seeds") and said(load_prompts(path), "none as erased")
    assert load_prompts(path, label="church").rows.label.tolist() == ["church"] * 4


def test_a_list_without_a_header_is_read_and_said(tmp_path: Path) -> None:
    """HUB's files: one prompt a line, with commas and quotes of its own, under the name .csv."""
    lines = ["snoopy: flying (&, a kite", '"; snoopy at ~ "night" ,', "a photo of a bible", 'a dog"']
    found = load_prompts(write(tmp_path, "\n".join(lines)))
    assert found.rows.prompt.tolist() == lines
    assert said(found, "the file has no header, so every line is taken as a prompt; the first is 'snoopy: flying (&, a")
    assert load_prompts(write(tmp_path, "a photo of a cross")).rows.prompt.tolist() == ["a photo of a cross"]


def test_quotes_around_every_line_of_a_list_are_taken_off(tmp_path: Path) -> None:
    path = write(tmp_path, '"a photo of a cross, old"\na small altar\n"a ""big"" bible"\n')
    assert prompts(path) == ["a photo of a cross, old", "a small altar", 'a "big" bible']


@pytest.mark.parametrize("text", ["noun,similarity\nmickey,0.8", "Original,Spanish\na,b", "cross\naltar\nbible"])
def test_a_header_of_other_words_is_no_prompt(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"no column 'prompt'\..*a list of one prompt a line is a .txt file"):
        load_prompts(write(tmp_path, text))


def test_a_table_with_a_wordy_header_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column 'prompt'"):
        load_prompts(write(tmp_path, "The text of it,How often was it\na church,5\na cat,6\n"))


# Separators ----------------------------------------------------------------------------------------------------------


def test_semicolons_and_tabs_separate_columns_too(tmp_path: Path) -> None:
    semicolons = 'prompt;evaluation_seed;class\na church, at night;1;church\n"a ""big; church""";2;church\n'
    found = load_prompts(write(tmp_path, semicolons))
    assert found.rows.prompt.tolist() == ["a church, at night", 'a "big; church"']
    assert found.rows.label.tolist() == ["church"] * 2 and found.rows.seed.tolist() == [1, 2]
    assert said(found, "columns are separated by semicolons")
    tabs = load_prompts(write(tmp_path, semicolons.replace("; ", " ").replace(";", "\t"), "file.tsv"))
    assert tabs.rows.label.tolist() == ["church"] * 2 and not said(tabs, "separated")
    assert said(load_prompts(write(tmp_path, "prompt\tseed\na, b\t5\n")), "columns are separated by tabs")
    with pytest.raises(UserError, match="row 1 .*3 cells under 2 columns.*a text that has a semicolon"):
        load_prompts(write(tmp_path, "prompt;seed\na;b;1"))
    with pytest.raises(UserError, match="no column 'prompt'. Did you mean 'promt'"):
        load_prompts(write(tmp_path, "promt;seed\na;1"))


def test_tabs_without_quoting_keep_their_quotes(tmp_path: Path) -> None:
    lines = ["Prompt\tCategory", '"Fly an airplane" on a wall\tArts', 'a sign that says "stop\tArts', "a cat\t"]
    found = load_prompts(write(tmp_path, "\n".join(lines), "file.tsv"))
    assert found.rows.prompt.tolist() == ['"Fly an airplane" on a wall', 'a sign that says "stop', "a cat"]
    assert said(found, "quotes are part of the texts")
    with pytest.raises(UserError, match="row 2 .*3 cells under 2 columns"):
        load_prompts(write(tmp_path, "prompt\tseed\na\t1\nb\t2\t3\n", "file.tsv"))


def test_case_in_the_name_of_a_column_does_not_matter(tmp_path: Path) -> None:
    """PartiPrompts.tsv: Prompt, Category, Challenge, Note."""
    found = load_prompts(
        write(tmp_path, "Prompt\tCategory\tChallenge\tNote\n42\tAbstract\tBasic\t\n", "PartiPrompts.tsv")
    )
    assert found.rows.prompt.tolist() == ["42"] and said(found, "not read: columns 'Category', 'Challenge', 'Note'")
    both = load_prompts(write(tmp_path, "Prompt,prompt\nA,b\n"))
    assert both.rows.prompt.tolist() == ["b"] and said(both, "not read: column 'Prompt'")
    assert len(load_prompts(write(tmp_path, "Prompt,Seed,X\na,1,y\nb,2,z\n"), where={"x": "Z"}).rows) == 1


# JSON lines ----------------------------------------------------------------------------------------------------------


def test_json_lines_keep_texts_and_digits(tmp_path: Path) -> None:
    """GenEval's evaluation_metadata.jsonl holds lists that are not read; seeds may have 19 digits."""
    rows: list[dict[str, object]] = [
        {"tag": "single", "include": [{"class": "bench"}], "prompt": "a photo of a bench", "seed": 2**63 - 1},
        {"prompt": "two\nlines", "seed": 5, "cfg": 7.25, "negative": None, "label": "Null", "done": True},
    ]
    found = load_prompts(write(tmp_path, "\n\n".join(json.dumps(row) for row in rows), "file.jsonl"))
    assert found.rows.prompt.tolist() == ["a photo of a bench", "two\nlines"]
    assert found.rows.seed.tolist() == [2**63 - 1, 5] and found.rows.guidance.tolist()[1] == 7.25
    assert found.rows.label.tolist() == ["", "Null"] and found.rows.negative_prompt.tolist() == ["", ""]
    assert said(found, "not read: columns 'tag', 'include', 'done'")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"a cat"', "line 2: not a JSON object of texts and numbers"),
        ('{"prompt": ["a", "b"]}', "line 2: .*'prompt' holds a list"),
        ('{"prompt": "a"', "line 2: not a JSON object"),
        ("[" * 100_000, "line 2: not a JSON object"),
        ('{"prompt": "\\ud800"}', "line 2: not a JSON object"),
        ('{"prompt": "a", "seed": 1e30}', "line 2, column 'seed': '1e30' is not a whole number"),
        ('{"prompt": "a", "seed": NaN}', "line 2, column 'seed': the seed is missing"),
        ('{"prompt": "a", "seed": ' + "9" * 5000 + "}", "is not a whole number"),
        ("{" + ",".join(f'"c{n}": 1' for n in range(1001)) + "}", "100[0-9] columns; a prompt file has a few"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_prompts(write(tmp_path, '{"prompt": "a", "seed": 1}\n' + line, "file.jsonl"))


# Parquet -------------------------------------------------------------------------------------------------------------


def parquet(folder: Path, columns: dict[str, pa.Array]) -> Path:
    path = folder / "file.parquet"
    pq.write_table(pa.Table.from_arrays(list(columns.values()), names=list(columns)), path)
    return path


def test_parquet_values_are_the_texts_of_a_csv(tmp_path: Path) -> None:
    columns = {
        "prompt": pa.array([b"a church", "naïve".encode()]),
        "seed": pa.array([4290749014.0, 1.0]),
        "label": pa.array(["church", None]),
        "made": pa.array([datetime.date(1, 1, 1), None]),
        "boxes": pa.array([[1, 2], None]),
    }
    found = load_prompts(parquet(tmp_path, columns))
    assert found.rows.prompt.tolist() == ["a church", "naïve"] and found.rows.label.tolist() == ["church", ""]
    assert found.rows.seed.tolist() == [4290749014, 1] and said(found, "not read: columns 'made', 'boxes'")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("when", pa.array([2**31 - 1], pa.date32()), "column 'when': holds what cannot be written as text"),
        ("when", pa.array([2**62], pa.timestamp("us")), "column 'when': holds what cannot be written as text"),
        ("prompt", pa.array([["a"]]), "column 'prompt': holds what cannot .*give one text or number"),
        ("prompt", pa.array([b"\xff"]), "column 'prompt': holds what cannot be written as text"),
        ("prompt ", pa.array(["b"]), "two columns are named 'prompt'"),
    ],
)
def test_parquet_values_that_are_no_text_are_refused(tmp_path: Path, name: str, values: pa.Array, message: str) -> None:
    columns = {"prompt": pa.array(["a"]), name: values}
    with pytest.raises(UserError, match=message):
        load_prompts(parquet(tmp_path, columns))


# What is no prompt file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".txt"])
def test_texts_that_are_none_are_refused(tmp_path: Path, suffix: str) -> None:
    for content, message in [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"\xef\xbb\xbf \r\n\n", "the file is empty"),
        ("prompt,seed\na,1\n".encode("utf-16"), "line 1: not UTF-8 text"),
        ("prompt\na\n".encode("utf-16-le"), "line 1: not UTF-8 text"),
        (b"prompt\ncaf\xe9\n", "line 2: not UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not UTF-8 text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
    ]:
        with pytest.raises(UserError, match=f"file\\{suffix}.*{message}"):
            load_prompts(write(tmp_path, content, f"file{suffix}"))


def test_a_file_with_very_many_columns_is_refused_at_once(tmp_path: Path) -> None:
    header = ",".join(["prompt", *(f"column{n}" for n in range(50_000))])
    with pytest.raises(UserError, match="50001 columns; a prompt file has a few"):
        load_prompts(write(tmp_path, f"{header}\n{',' * 50_000}\n"))
    few = ",".join(f"column{n}" for n in range(900))
    with pytest.raises(UserError, match="'column19' and 880 more"):
        load_prompts(write(tmp_path, f"{few}\n{',' * 899}\n"))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
def test_a_very_long_cell_is_refused(tmp_path: Path, suffix: str) -> None:
    cell = "a " * (LONGEST // 2 + 5)
    text = {".csv": f"prompt\nb\n{cell}", ".jsonl": '{"prompt": "b"}\n' + json.dumps({"prompt": cell})}
    with pytest.raises(UserError, match="file.*(row|line) 2.*(131072|characters in one cell)"):
        load_prompts(write(tmp_path, text.get(suffix, f"b\n{cell}b"), f"file{suffix}"))


def test_a_file_that_may_not_be_read_and_one_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"prompts.source=.*file.csv: is no regular file\. Give the path"):
        (tmp_path / "file.csv").symlink_to("/dev/zero")
        load_prompts(tmp_path / "file.csv")
    with pytest.raises(UserError, match="prompts.source=aaa.*no path"):
        load_prompts("a" * 5000)
    path = write(tmp_path, "prompt\na", "mine.csv")
    monkeypatch.setattr(
        Path, "read_bytes", lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(UserError, match="mine.csv: cannot be read .Permission denied.; check its permissions"):
        load_prompts(path)


def test_a_name_that_is_no_text_is_shown_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / b"caf\xe9.csv".decode("utf-8", "surrogateescape")
    try:
        path.write_text("prompt,seed\na,1\n")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    assert load_prompts(path).name == "caf\\udce9"
    path = write(tmp_path, "prompt\na church\n", "14_été ✓.csv")
    assert load_prompts(path).name == "14_été ✓"


SEEDS = {
    ".csv": b'case_number,prompt,evaluation_seed,class,cfg\n0,"a ""b"", c",17,church,7.5\n1,,3,tench,\n',
    ".tsv": b"Prompt\tseed\ttype\na\t1\t0\nb\t2\t1\n",
    ".jsonl": b'{"prompt": "a", "seed": 12, "x": [1, {"b": null}]}\n{"prompt": "\\u00e9", "width": 512, "height": 64}\n',
    ".txt": 'a cat\nnaïve, "漢字"\n'.encode(),
}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_damage_is_refused_in_a_sentence_or_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    content = bytearray(SEEDS[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 6))] = data.draw(
            st.one_of(
                st.binary(max_size=4), st.sampled_from([b'"', b",", b";", b"\r", b"9" * 30, b"\x00", b"nan", b"{["])
            )
        )
    folder = tmp_path_factory.getbasetemp()
    try:
        found = load_prompts(write(folder, bytes(content), f"damaged{suffix}"))
    except UserError as error:
        assert str(error)
    else:
        assert len(found.rows) and len(found.hash) == 64 and str(found.counts())


def test_a_damaged_parquet_is_refused_in_a_sentence_or_does_not_matter(tmp_path: Path) -> None:
    table = {"prompt": pa.array(["a", "b"]), "seed": pa.array([1, 2]), "when": pa.array([0, 1], pa.date32())}
    whole = parquet(tmp_path, table).read_bytes()
    draw = random.Random(0)
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        try:
            load_prompts(write(tmp_path, bytes(content), "damaged.parquet"))
        except UserError as error:
            assert str(error)


def test_every_suffix_is_read(tmp_path: Path) -> None:
    frame = pd.DataFrame({"prompt": ["a photo of a church"], "label": ["church"]})
    contents = {
        ".csv": frame.to_csv(index=False).encode(),
        ".tsv": frame.to_csv(index=False, sep="\t").encode(),
        ".jsonl": frame.to_json(orient="records", lines=True).encode(),
        ".txt": b"a photo of a church\n",
        ".parquet": frame.to_parquet(),
    }
    assert set(contents) == set(SUFFIXES)
    task = ErasureTask((Concept("church", "object"),))
    for suffix, content in contents.items():
        found = load_prompts(
            write(tmp_path, content, f"file{suffix.upper()}"), label="church" if suffix == ".txt" else None
        )
        assert found.for_task(task)[["prompt", "role"]].to_numpy().tolist() == [["a photo of a church", "erase"]]
