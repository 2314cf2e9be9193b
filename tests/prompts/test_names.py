"""Lists of names and captions that erasers read from files: one reader, values out of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from erasebench.errors import UserError
from erasebench.prompts.names import read_captions, read_names


def write(folder: Path, text: str | bytes, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_names_are_kept_in_order_with_repeats(tmp_path: Path) -> None:
    assert read_names(write(tmp_path, "id,concept\n1,A.J.Casson\n2, Null \n3,Null\n")) == ("A.J.Casson", "Null", "Null")
    assert read_names(write(tmp_path, "Name;prompt\nMonet, Claude;x\n")) == ("Monet, Claude",)
    assert read_names(write(tmp_path, "Claude Monet\n\nVan Gogh\n", "names.txt")) == ("Claude Monet", "Van Gogh")
    assert read_names(write(tmp_path, '{"artist": "Monet"}\n', "names.jsonl")) == ("Monet",)


def test_a_name_that_is_empty_and_a_file_without_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="row 2 .*column 'concept': the name is empty; fill it in or delete the row"):
        read_names(write(tmp_path, "id,concept\n1,a\n2,\n"))
    with pytest.raises(UserError, match=r"no column of names \(concept, name, artist, noun\); it has 'prompt', 'seed'"):
        read_names(write(tmp_path, "prompt,seed\na,1\n"))
    with pytest.raises(UserError, match="method.retain=.*nmes.csv: no such file. Did you mean 'names.csv'"):
        write(tmp_path, "name\na", "names.csv")
        read_names(tmp_path / "nmes.csv", "method.retain")


def test_captions_of_a_list(tmp_path: Path) -> None:
    file = write(tmp_path, "\ufeffa dog\n\n  a cat \r\na dog\n", "captions.txt")
    assert read_captions(file) == ("a dog", "a cat", "a dog")


@pytest.mark.parametrize("column", ["prompt", "caption", "text", "name", "Caption"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_captions_of_a_table(column: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"captions.{kind}"
    table = pd.DataFrame({"id": ["1", "2"], column: ["a dog, wet", ""]})
    table.to_csv(file, index=False) if kind == "csv" else table.to_parquet(file)
    assert read_captions(str(file)) == ("a dog, wet", "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "method.preserve=.*none.csv: no such file"),
        ("a.json", b"{}", "a prompt file is a .csv"),
        ("a.csv", b"id,words\n1,dog\n", "no column of prompts .*'words'"),
        ("a.txt", b"\n \n", "the file is empty"),
        ("a.txt", b"caf\xe9\n", "not UTF-8"),
        ("a.csv", b"caption\n", "no rows"),
    ],
)
def test_bad_files_are_refused(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_captions(tmp_path / name, "method.preserve")


def test_a_list_of_json_in_one_line_is_a_list_of_names(tmp_path: Path) -> None:
    file = tmp_path / "erased.txt"
    file.write_text('["Jean-Fran\\u00e7ois Millet", " Ben Shahn"]', encoding="utf-8")
    assert read_names(file) == ("Jean-François Millet", "Ben Shahn")
    for text in ("[1, 2]", "[not json", "[Monet]"):
        file.write_text(text, encoding="utf-8")
        assert read_names(file) == (text,), "a name as it stands"
