"""Prompt files of papers: fetched where they lie, kept only if they are what they should be, else named to the letter."""

from __future__ import annotations

import io
import re
from contextlib import closing
from pathlib import Path
from urllib.error import URLError

import pytest
from omegaconf import OmegaConf

from erasebench.cli import main
from erasebench.commands import prefetch as prefetching
from erasebench.config.choices import groups
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.prompts import released_files as released
from erasebench.prompts.choose import from_config
from erasebench.prompts.released_files import ReleasedFile, fetch_released, released_files

ROWS = "case_number,prompt,class,evaluation_seed\n0,an image of a tench,tench,1\n1,an image of a church,church,2\n"
COMMIT = "80bb91517897d3b57f4eea51cef46f86b07f78fd"


@pytest.fixture
def imagenette(tmp_path: Path) -> ReleasedFile:
    """A file of the shape of Imagenette's, whose content is known."""
    path = tmp_path / "own.csv"
    path.write_text(ROWS)
    content = from_config(
        {**compose(["prompts=imagenette", "prompts.source=x"]).prompts, "source": str(path)}, "object", ()
    ).content
    return ReleasedFile("imagenette", "someone/repository", "data/imagenette.csv", COMMIT, (content,), ("2",))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What GitHub answers; the addresses asked for are put into the list that is given."""
    asked: list[str] = []

    def answer(url: str, timeout: float):
        asked.append(url)
        return closing(io.BytesIO(ROWS.encode()))

    monkeypatch.setattr(released, "urlopen", answer)
    monkeypatch.setattr(released.constants, "HF_HUB_OFFLINE", False)
    return asked


def test_what_arrives_is_kept_under_its_name_and_not_asked_for_again(
    imagenette: ReleasedFile, answers: list[str], tmp_path: Path
) -> None:
    path = fetch_released(imagenette, tmp_path / "prompts")
    assert path == tmp_path / "prompts" / "imagenette.csv" and path.read_text() == ROWS
    assert answers == [f"https://raw.githubusercontent.com/someone/repository/{COMMIT}/data/imagenette.csv"]
    assert fetch_released(imagenette, tmp_path / "prompts") == path and len(answers) == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["imagenette.csv"]


@pytest.mark.parametrize("arrived", [ROWS.replace("tench,1", "tench,7"), "<html>404</html>", "", "\0"])
def test_another_file_is_not_kept_and_the_right_one_is_named(
    arrived: str, imagenette: ReleasedFile, answers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(released, "urlopen", lambda url, timeout: closing(io.BytesIO(arrived.encode())))
    with pytest.raises(UserError, match="is another file, and was not kept") as refusal:
        fetch_released(imagenette, tmp_path / "prompts")
    for part in ("someone/repository", "data/imagenette.csv", COMMIT, imagenette.contents[0], "2 rows"):
        assert part in str(refusal.value)
    assert not list((tmp_path / "prompts").iterdir())


def test_a_file_of_ones_own_is_never_overwritten(imagenette: ReleasedFile, answers: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "prompts" / "imagenette.csv"
    mine.parent.mkdir()
    mine.write_text(ROWS + "2,mine,tench,3\n")
    with pytest.raises(UserError, match="is not the released file; move it away"):
        fetch_released(imagenette, tmp_path / "prompts")
    assert mine.read_text().endswith("mine,tench,3\n") and not answers


@pytest.mark.parametrize(
    ("path", "commit", "contents"), [("prompts/<target>.csv", COMMIT, ("00",)), ("data/a.csv", "6d3df0c", ())]
)
def test_what_could_not_be_told_from_others_is_not_fetched(
    path: str, commit: str, contents: tuple[str, ...], answers: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="it is not fetched, since .* at commit"):
        fetch_released(ReleasedFile("imagenette", "a/b", path, commit, contents), tmp_path)
    assert not answers


def test_the_command_fetches_it_and_gives_the_run(
    imagenette: ReleasedFile, answers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(prefetching, "released_files", lambda: {"imagenette": imagenette})
    command = ["prefetch", "experiment=cure_objects", "model=embedded", "metric=[judge]", f"store.dir={tmp_path}"]
    assert main(command) == 0
    said = capsys.readouterr().out
    source = re.search(r"run it with: erasebench run .*prompts\.source=(\S+)", said)
    assert source and Path(source[1]).read_text() == ROWS
    assert main(command) == 0 and len(answers) == 1
    assert "here      prompts imagenette" in capsys.readouterr().out


@pytest.mark.parametrize("why", ["no network", "offline"])
def test_without_a_network_the_command_says_where_it_lies(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def unreachable(url: str, timeout: float):
        raise URLError("Name or service not known")

    monkeypatch.setattr(released, "urlopen", unreachable)
    monkeypatch.setattr(released.constants, "HF_HUB_OFFLINE", why == "offline")
    file = released_files()["imagenette"]
    assert (
        main(["prefetch", "experiment=cure_objects", "model=embedded", "metric=[judge]", f"store.dir={tmp_path}"]) == 1
    )
    said = capsys.readouterr().out
    for part in (file.repository, file.path, file.commit, file.contents[0], "prompts.source=FILE"):
        assert part in said
    assert said.count("failed") == 1 and "run it with" not in said


def test_every_known_place_is_of_a_prompt_set_that_needs_a_file() -> None:
    for name, file in released_files().items():
        assert name in groups()["prompts"]
        node = OmegaConf.to_container(compose([f"prompts={name}", "prompts.source=x"]).prompts)
        assert node["file_of"], name
        assert re.fullmatch(r"[\w-]+/[\w.-]+", file.repository) and re.fullmatch(
            "[0-9a-f]{7}|[0-9a-f]{40}", file.commit
        )
        assert not re.search(r"\.\.|^/|[?#]", file.path)


def test_of_uces_files_for_each_number_of_artists_it_is_told_where_they_lie(tmp_path: Path, capsys) -> None:
    command = ["prefetch", "model=embedded", "prompts=uce_artists", "metric=[judge]", f"store.dir={tmp_path}"]
    assert main(command) == 1
    said = capsys.readouterr().out
    file = released_files()["uce_artists"]
    assert file.path in said and file.repository in said and file.commit in said and "several" in said
