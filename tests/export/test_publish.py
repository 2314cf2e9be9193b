"""Publishing: a dry run lists exactly what a real one sends, nothing unsafe or foreign is sent, and refusals come first."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from report_helpers import make_run, renamed
from table_helpers import PLUGINS, finish, make_plan, quiet, tabulate

from erasebench.cli import main
from erasebench.config.compose import compose
from erasebench.export import publish as publishing
from erasebench.models.marks import MARK
from erasebench.report.write import write_report
from erasebench.run import run
from erasebench.runs.folder import read_plan
from erasebench.store import Store


class FakeHub:
    """What of ``HfApi`` is used; it keeps what arrives."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.calls: list[tuple] = []

    def create_repo(self, repo_id, *, repo_type, private, exist_ok):
        self.calls.append(("create", repo_id, repo_type, private, exist_ok))
        self.repositories.setdefault(repo_id, {})

    def list_repo_files(self, repo_id, *, repo_type):
        return list(self.repositories[repo_id])

    def upload_folder(self, *, repo_id, folder_path, repo_type, commit_message):
        self.calls.append(("upload", repo_id, repo_type, commit_message))
        sent = {
            path.relative_to(folder_path).as_posix(): path for path in Path(folder_path).rglob("*") if path.is_file()
        }
        self.repositories[repo_id] |= {name: path.read_bytes() for name, path in sent.items()}
        return SimpleNamespace(commit_url=f"https://hub.example/{repo_id}/commit/1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr(publishing, "HfApi", lambda: fake)
    monkeypatch.setattr(publishing, "get_token", lambda: "a token")
    return fake


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks the Hub or for a token fails."""

    def asked(*arguments, **options):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(publishing, "HfApi", asked)
    monkeypatch.setattr(publishing, "get_token", lambda: None)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """A run of a model that is not the embedded one, with unsafe prompts, its tables, pictures and report."""
    objects = make_plan(prompts=3)
    unsafe = make_plan(("none", "cure", "uce"), ("church",), 3).assign(task_kind="unsafe")
    unsafe = unsafe[unsafe.role != "general"]
    unsafe = unsafe.assign(
        kind="unsafe",
        edit_key=unsafe.edit_key.str[::-1],
        prompt="unsafe: " + unsafe.prompt,
        prompt_id="u-" + unsafe.prompt_id,
    )
    store = make_run(tmp_path_factory.mktemp("results"), plan=renamed(pd.concat([objects, unsafe], ignore_index=True)))
    tabulate(["one"], str(store.root), console=quiet())
    write_report(["one"], str(store.root), console=quiet(), plugins=PLUGINS, full=True)
    return store


def publish(store: Store, *more: str, run: str = "one") -> int:
    return main(["publish", run, "--to", "someone/erased", "--store", str(store.root), "--plugins", PLUGINS[0], *more])


def listed(text: str) -> dict[str, int]:
    """The files that a command printed, with their bytes."""
    return {name: int(size.replace(",", "")) for size, name in re.findall(r"^ *([\d,]+)  (\S.*)$", text, re.MULTILINE)}


def unsafe_keys(store: Store) -> set[str]:
    plan = read_plan(store.root / "runs" / "one")
    return set(plan.key[plan.task_kind == "unsafe"])


@pytest.mark.parametrize("more", [(), ("--images",), ("--images", "--unsafe-images")])
def test_a_dry_run_lists_what_a_real_one_sends(
    store: Store, hub: FakeHub, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(store, *more, "--dry-run") == 0
    said = capsys.readouterr().out
    assert not hub.calls and "nothing was sent" in said
    assert publish(store, *more) == 0
    sent = {name: len(data) for name, data in hub.repositories["someone/erased"].items()}
    assert listed(said) == sent
    assert "commit/1" in capsys.readouterr().out
    assert not list((store.root / "work").glob(".erasebench-*")), "what was put together is gone"


def test_a_dry_run_needs_no_token_and_asks_nobody(store: Store, no_hub: None, capsys) -> None:
    assert publish(store, "--dry-run") == 0
    files = listed(capsys.readouterr().out)
    assert {"README.md", "runs/one/manifest.json", "runs/one/config.yaml", "runs/one/tables/measured.csv"} <= set(files)
    assert "runs/one/report/index.html" in files and "runs/one/grids/object.png" in files
    assert "runs/one/plan.parquet" not in files, "prompt files have licences of their own"


def test_nothing_unsafe_is_sent_unless_it_is_asked_for(store: Store, hub: FakeHub, capsys) -> None:
    unsafe = unsafe_keys(store)
    assert unsafe
    assert publish(store, "--images") == 0
    sent = hub.repositories["someone/erased"]
    pictures = {name for name in sent if name.endswith((".png", ".jpg", ".webp"))}
    assert not {Path(name).stem for name in pictures} & unsafe
    assert "runs/one/grids/unsafe.png" not in sent and "runs/one/grids/object.png" in sent
    assert not any("unsafe-grid" in name for name in sent)
    assert any(name.startswith("images/") for name in sent) and any("/thumbs/" in name for name in sent)
    said = capsys.readouterr().out
    assert "--unsafe-images sends them" in said and "may be unsafe" in sent["README.md"].decode()
    assert publish(store, "--images", "--unsafe-images") == 0
    assert unsafe <= {Path(name).stem for name in hub.repositories["someone/erased"]}


def test_a_report_with_pictures_within_its_pages_is_held_back(store: Store, hub: FakeHub, capsys) -> None:
    page = store.root / "reports" / "one" / "index.html"
    before = page.read_text()
    page.write_text(before + '<img src="data:image/png;base64,AAAA">')
    try:
        assert publish(store) == 0
    finally:
        page.write_text(before)
    assert not any("/report/" in name for name in hub.repositories["someone/erased"])
    assert "the report: pictures stand within its pages" in capsys.readouterr().out


def test_a_link_is_not_followed_and_foreign_files_stay(store: Store, hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "id_rsa").write_text("a secret")
    tables = store.root / "runs" / "one" / "tables"
    mine = [tables / "stolen.csv", tables / "notes.docx", tables / ".env.csv"]
    mine[0].symlink_to(tmp_path / "id_rsa")
    for path in mine[1:]:
        path.write_text("mine")
    try:
        assert publish(store) == 0
    finally:
        for path in mine:
            path.unlink()
    names = set(hub.repositories["someone/erased"])
    assert not any(path.name in name for path in mine for name in names)


def test_a_card_that_is_there_stays(store: Store, hub: FakeHub) -> None:
    hub.repositories["someone/erased"] = {"README.md": b"my own words"}
    assert publish(store, "--private") == 0
    sent = hub.repositories["someone/erased"]
    assert sent["README.md"] == b"my own words" and b"concept erasure, measured" in sent["runs/one/README.md"]
    assert hub.calls[0] == ("create", "someone/erased", "dataset", True, True)


@pytest.mark.parametrize("to", ["nobody", "a/b/c", "some one/x", "a/b--c", "", "datasets/a/b", "../x"])
def test_a_name_that_is_none_is_refused(to: str, store: Store, no_hub: None, capsys) -> None:
    assert main(["publish", "one", "--to", to, "--store", str(store.root), "--dry-run"]) == 2
    assert "which is USER/NAME" in capsys.readouterr().err


def test_no_token_no_run_and_nothing_to_send_are_refused_in_a_sentence(
    store: Store, no_hub: None, tmp_path: Path, capsys
) -> None:
    assert publish(store) == 2
    assert "no token of the Hub here; log in with: hf auth login" in capsys.readouterr().err
    assert publish(store, "--dry-run", run="two") == 2
    assert "no such run" in capsys.readouterr().err
    bare = make_run(tmp_path / "bare")
    assert publish(bare, "--dry-run") == 2
    assert "has no tables, so there is nothing to send" in capsys.readouterr().err


def test_what_the_hub_says_is_told_and_the_token_is_not(store: Store, hub: FakeHub, monkeypatch, capsys) -> None:
    def refuse(**options):
        raise ConnectionError("403 Forbidden: you have no right to write there")

    monkeypatch.setattr(hub, "upload_folder", refuse)
    assert publish(store) == 2
    said = capsys.readouterr().err
    assert "403 Forbidden" in said and "a token" not in said and len(said.splitlines()) == 1


@pytest.fixture(scope="module")
def edited(tmp_path_factory) -> Store:
    """A run of the embedded model with an edit, a guard and the unedited model."""
    root = tmp_path_factory.mktemp("edited")
    config = compose(
        [
            "name=one", "task=object", "task.erase=[church]", "method=[uce,negative_prompt]", "metric=[judge]", "prompts.per_erased=1",
            "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=0", "prompts.general=0",
            "protocol.steps=1", f"store.dir={root}",
        ]
    )  # fmt: skip
    assert run(config, quiet()) is not None
    return Store(root)


def test_edits_are_sent_with_their_cards_to_a_model(edited: Store, hub: FakeHub, capsys) -> None:
    assert publish(edited, "--edits", "--dry-run") == 0
    said = capsys.readouterr().out
    assert publish(edited, "--edits") == 0
    sent = hub.repositories["someone/erased"]
    assert set(listed(said)) == set(sent) and hub.calls[0][2] == "model"
    folder = next(name.rpartition("/")[0] for name in sent if name.endswith(MARK))
    assert folder.startswith("edits/uce-church-") and f"{folder}/README.md" in sent
    assert any(name.startswith(folder) and name.endswith(".safetensors") for name in sent)
    card = sent["README.md"].decode()
    assert f"({folder}/README.md)" in card and "not of Stable Diffusion" in card
    assert "the edit negative_prompt of church" in said, "a guard is in no weights, and is named"
    assert not any(name.endswith(".png") and name.startswith("images/") for name in sent)


def test_edits_of_a_run_without_any_are_refused(store: Store, tmp_path: Path, no_hub: None, capsys) -> None:
    plan = make_plan(("none",), prompts=2)
    finish(Store(tmp_path), "one", plan)
    tabulate(["one"], str(tmp_path), console=quiet())
    assert publish(Store(tmp_path), "--edits", "--dry-run") == 2
    assert "there is only the unedited model" in capsys.readouterr().err
