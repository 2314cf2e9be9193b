"""What a caption says of a run: written, read again, and read from files of before."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasebench.errors import UserError
from erasebench.runs.about import EMBEDDED, About, from_json, read_about
from erasebench.runs.names import ABOUT_FILE

BEFORE = {
    "model": "sd14 (3f2a, float16)",
    "protocol": "cure v1",
    "prompts of kind object": "builtin-object v1 (0a1b2c3d)",
    "prompts of kind of kind artist": "odd",
    "note": "",
}


@given(
    st.builds(
        About,
        st.text(),
        st.text(),
        st.dictionaries(st.text(), st.text()),
        st.booleans(),
        st.dictionaries(st.text(), st.text()),
        st.lists(st.text()).map(tuple),
    )
)
def test_what_is_written_is_read_again_whatever_it_says(tmp_path_factory: pytest.TempPathFactory, about: About) -> None:
    folder = tmp_path_factory.mktemp("run")
    about.write(folder)
    assert read_about(folder) == about and read_about(folder).names == about.names
    assert read_about(folder).forgot == about.forgot


def test_a_part_has_a_short_name_and_without_one_its_own_words() -> None:
    about = About("mine (v2) (ab12, float16)", "p v1 (DDIM)", {"object": "o"}, names={"model": "mine (v2)"})
    assert (about.name("model"), about.name("protocol")) == ("mine (v2)", "p v1 (DDIM)")
    assert about == About("mine (v2) (ab12, float16)", "p v1 (DDIM)", {"object": "o"}), "names are nothing measured"
    assert about == replace(about, forgot=("shuffled",)) and from_json(
        {**asdict(about), "forgot": ["shuffled"]}
    ).forgot == ("shuffled",)


def test_files_of_before_are_read() -> None:
    about = from_json(BEFORE)
    assert about == About(
        BEFORE["model"], "cure v1", {"object": "builtin-object v1 (0a1b2c3d)", "of kind artist": "odd"}
    )
    assert from_json(BEFORE | {"note": EMBEDDED}).embedded
    assert not from_json(BEFORE | {"note": "seen by nobody"}).embedded, "any other note makes no image harmless"


def test_a_kind_is_told_its_own_prompts_only() -> None:
    about = About("m", "p", {"object": "o", "artist": "a"})
    assert about.of_kind("artist") == [("model", "m"), ("protocol", "p"), ("prompts", "a")]
    assert about.of_kind("unsafe") == [("model", "m"), ("protocol", "p")]


@pytest.mark.parametrize("text", [None, "", "[]", "{", json.dumps({"model": "m"})])
def test_a_file_that_is_not_there_or_broken_is_named(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / ABOUT_FILE).write_text(text)
    with pytest.raises(UserError, match=r"about\.json"):
        read_about(tmp_path)
