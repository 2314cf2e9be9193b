"""What releases do with rows that have no seed and with empty prompts, as options; by default neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.prompts.choose import from_config
from erasebench.prompts.reader import load_prompts


def write(folder: Path, *lines: str) -> Path:
    path = folder / "file.csv"
    path.write_text("\n".join([*lines, ""]))
    return path


def test_rows_without_seeds_get_one_seed_where_that_is_asked_for(tmp_path: Path) -> None:
    file = write(tmp_path, "prompt,label", "a church,church", "a gas pump,gas pump")
    assert load_prompts(file).rows.seed.nunique() == 2
    asked = load_prompts(file, missing_seed=42)
    assert asked.rows.seed.tolist() == [42, 42] and "every row got 42" in " ".join(asked.notes)


def test_seeds_of_a_file_stand_whatever_is_asked_for(tmp_path: Path) -> None:
    file = write(tmp_path, "prompt,seed", "a church,5")
    assert load_prompts(file, missing_seed=42).rows.seed.tolist() == [5]


def test_empty_prompts_are_drawn_as_a_word_where_that_is_asked_for(tmp_path: Path) -> None:
    file = write(tmp_path, "case_number,prompt,seed", "1,a church,5", "2260,,6")
    assert load_prompts(file).rows.prompt.tolist() == ["a church", ""]
    asked = load_prompts(file, empty="nan")
    assert asked.rows.prompt.tolist() == ["a church", "nan"]
    assert any("drawn as 'nan'" in note and "2260" in note for note in asked.notes)
    assert asked.content != load_prompts(file).content


def test_both_are_options_of_the_config(tmp_path: Path) -> None:
    file = write(tmp_path, "prompt,label", "a church,church", ",church")
    node = compose(["prompts=file", f"prompts.source={file}", "prompts.missing_seed=42", "prompts.empty='nan'"]).prompts
    rows = from_config(node, "object", ()).rows
    assert (rows.prompt.tolist(), rows.seed.tolist()) == (["a church", "nan"], [42, 42])


@pytest.mark.parametrize("seed", [-1, 2**63, True, 1.5])
def test_a_seed_that_is_none_is_refused(tmp_path: Path, seed: object) -> None:
    with pytest.raises(UserError, match="missing_seed="):
        load_prompts(write(tmp_path, "prompt", "a church"), missing_seed=seed)
