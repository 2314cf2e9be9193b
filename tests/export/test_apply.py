"""Edits onto models: those that fit are written, the others refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from erasebench.cli import main
from erasebench.edits.change import Change
from erasebench.edits.combine import combine
from erasebench.edits.edit import Edit
from erasebench.methods.closed_form.cure import Cure
from erasebench.methods.closed_form.uce import Uce
from erasebench.models.load import load_model
from erasebench.models.marks import MARK, read_marks
from erasebench.models.targets import named_weight


@pytest.fixture(scope="module")
def models(small_pipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of one shape (base, tuned) and one of another (wide)."""
    folder = tmp_path_factory.mktemp("models")
    pipe = small_pipe()
    pipe.save_pretrained(folder / "base")
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(1.01)
    pipe.save_pretrained(folder / "tuned")
    small_pipe(width=32).save_pretrained(folder / "wide")
    return folder


@pytest.fixture(scope="module")
def edits(models: Path, church_task, artists_task, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of edits of the base model: two maps of tokens, and one that is additive."""
    folder = tmp_path_factory.mktemp("edits")
    model = load_model(str(models / "base"), device="cpu")
    about = {"name": "base", "family": "sd1", "revision": model.revision, "dtype": "float32"}
    made = {"uce": Uce().edit(model.pipe, church_task), "cure": Cure(alpha=5).edit(model.pipe, artists_task)}
    weights = {name: named_weight(model.pipe, name).detach() for name in made["uce"].changes}
    made["additive"] = Edit({n: c.at(weights[n]) for n, c in made["uce"].changes.items()}, dict(made["uce"].info))
    made["additive2"] = Edit({n: c.at(weights[n]) for n, c in made["cure"].changes.items()}, dict(made["cure"].info))
    return {
        name: Edit(e.changes, e.info | {"model": about}).save(folder / f"{name}.safetensors")
        for name, e in made.items()
    }


def weights(folder: Path, names) -> dict[str, torch.Tensor]:
    pipe = load_model(str(folder), device="cpu").pipe
    return {name: named_weight(pipe, name).detach() for name in names}


def test_an_edit_is_applied_to_another_model_of_its_shape_and_that_is_said(
    models: Path, edits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["apply", str(edits["uce"]), "--to", str(models / "tuned"), "--out", str(out)]) == 0
    assert "nothing says that it erases as well there" in " ".join(capsys.readouterr().out.split())
    edit = Edit.load(edits["uce"])
    model = load_model(str(models / "tuned"), device="cpu")
    with edit.applied(model.pipe):
        for name, weight in weights(out, edit.changes).items():
            assert torch.equal(weight, named_weight(model.pipe, name))
        assert torch.equal(load_model(str(out), device="cpu").pipe.unet.conv_in.weight, model.pipe.unet.conv_in.weight)
    card = (out / "README.md").read_text()
    assert "church" in card and "**not run**" in card and str(models) not in card
    assert [info["method"] for info in read_marks(out)] == ["uce"]


def test_on_the_model_it_was_made_for_there_is_no_warning(
    models: Path, edits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["apply", str(edits["uce"]), "--to", str(models / "base"), "--out", str(out), "--dtype", "bfloat16"]
    assert main(arguments) == 0
    assert "nothing says" not in capsys.readouterr().out
    assert load_model(str(out), device="cpu", dtype="bfloat16").pipe.unet.dtype == torch.bfloat16
    assert json.loads((out / MARK).read_text())["base"]["dtype"] == "bfloat16"


@pytest.mark.parametrize("how", ["sum", "sequence"])
def test_several_edits_are_summed_or_applied_in_order(
    how: str, models: Path, edits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("uce", "cure")
    out = tmp_path / "out"
    arguments = [
        "apply",
        *(str(edits[name]) for name in names),
        "--to",
        str(models / "base"),
        "--out",
        str(out),
        "--how",
        how,
    ]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert f"2 edits, {how}" in shown and "the same" not in shown
    pipe = load_model(str(models / "base"), device="cpu").pipe
    changes = combine([Edit.load(edits[name]).changes for name in names], how, pipe)
    with Edit(changes).applied(pipe):
        for name, weight in weights(out, changes).items():
            assert torch.equal(weight, named_weight(pipe, name))
    assert [info["method"] for info in read_marks(out)] == ["uce", "cure"]
    card = (out / "README.md").read_text()
    assert ("are summed" if how == "sum" else "in the order above") in card


def test_additive_edits_give_the_same_by_sum_and_sequence_and_that_is_said(
    models: Path, edits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {}
    for how in ("sum", "sequence"):
        files = [str(edits["additive"]), str(edits["additive2"])]
        out = tmp_path / how
        assert main(["apply", *files, "--to", str(models / "base"), "--out", str(out), "--how", how]) == 0
        assert "are the same" in " ".join(capsys.readouterr().out.split())
        made[how] = weights(out, Edit.load(edits["additive"]).changes)
    assert all(torch.equal(weight, made["sequence"][name]) for name, weight in made["sum"].items())


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["apply", *arguments]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_an_edit_that_does_not_fit_is_refused_with_weight_shapes_and_models(
    models: Path, edits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    first = next(iter(Edit.load(edits["uce"]).changes))
    said = refused([str(edits["uce"]), "--to", str(models / "wide"), *out], capsys)
    assert first in said and "[any, 24]" in said and "[8, 32]" in said
    assert "made for base (sd1" in said and "in wide (sd1" in said
    said = refused([str(edits["additive"]), "--to", str(models / "wide"), *out], capsys)
    assert "[8, 24]" in said and "[8, 32]" in said
    strange = tmp_path / "strange.safetensors"
    Edit({"unet.nothing.weight": Change(delta=torch.ones(2, 2))}, {"method": "x"}).save(strange)
    said = refused([str(strange), "--to", str(models / "base"), *out], capsys)
    assert "unet.nothing.weight" in said and "no such weight" in said and "does not name" in said
    # the second of two does not fit: the first is not written either
    refused([str(edits["uce"]), str(strange), "--to", str(models / "base"), *out], capsys)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_an_edited_model_is_refused_unless_composing(
    models: Path, edits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert main(["apply", str(edits["uce"]), "--to", str(models / "base"), "--out", str(once)]) == 0
    arguments = [str(edits["cure"]), "--to", str(once), "--out", str(twice)]
    capsys.readouterr()
    said = refused(arguments, capsys)
    assert "already edited by uce (church)" in said and "--compose" in said and not twice.exists()
    assert main(["apply", *arguments, "--compose"]) == 0
    assert [info["method"] for info in read_marks(twice)] == ["uce", "cure"]
    card = (twice / "README.md").read_text()
    assert "church" in card and "monet" in card


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--how", "summ"], "Did you mean 'sum'"),
        (["--dtype", "float8"], "unknown dtype"),
        (["--to", "nowhere"], "no such folder"),
        (["--to", "folder"], "names no model"),
    ],
)
def test_bad_arguments_are_refused(
    more: list[str],
    message: str,
    models: Path,
    edits: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(edits["uce"]), "--to", str(models / "base"), "--out", str(tmp_path / "out"), *more]
    assert message in refused(arguments, capsys)
    assert not (tmp_path / "out").exists()


def test_files_and_folders_that_are_not_right_are_refused(
    models: Path, edits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = ["--to", str(models / "base"), "--out", str(tmp_path / "out")]
    whole = edits["uce"].read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) - 100])
    assert "cannot be read" in refused([str(tmp_path / "cut.safetensors"), *to], capsys)
    assert "named twice" in refused([str(edits["uce"]), str(edits["uce"]), *to], capsys)
    pickle = tmp_path / "evil.bin"
    pickle.write_bytes(b"\x80\x04cos\nsystem\n.")
    assert "not an edit that erasebench wrote" in refused([str(pickle), *to], capsys)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    assert "not an empty folder" in refused([str(edits["uce"]), *to], capsys)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["unet.pt", "unet.safetensors"])
def test_weights_of_another_method_are_no_broken_edit(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": torch.zeros(4, 4)}
    (torch.save if name.endswith(".pt") else save_file)(tensors, tmp_path / name)
    assert main(["apply", str(tmp_path / name), "--to", "embedded", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "not an edit that erasebench wrote" in error and f"model.weights={tmp_path / name}" in error
    assert "delete" not in error and "damaged" not in error and (tmp_path / name).exists()
