"""A UNet trained without a concept: which pictures it never sees, what is written, and who may read it."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from erasebench.concepts import Concept, ErasureTask
from erasebench.config.compose import compose
from erasebench.edits.label import label_of
from erasebench.errors import UserError
from erasebench.methods.controls.retrained import Retrained
from erasebench.metrics.kid import Kid
from erasebench.models.load import Model, load_model
from erasebench.run import run
from erasebench.runs.plan import prepare
from erasebench.tiny import retrain as module
from erasebench.tiny.captions import SYNONYMS
from erasebench.tiny.data import World, draw
from erasebench.tiny.loop import Fit
from erasebench.tiny.names import NAMES
from erasebench.tiny.retrain import labels_of, main, retrain, shows

FIT = Fit(steps=2, batch=4, lr=1e-3, warmup=1)
RENDERS = 60
WITHOUT = ("knife", "Pistol", "bomb")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retrained")
    retrain(WITHOUT, folder, renders=RENDERS, fit=FIT)
    return folder


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("embedded", name="embedded")


def task(*names: str, kind: str = "unsafe") -> ErasureTask:
    return ErasureTask(tuple(Concept(name, kind=kind) for name in names))


@pytest.mark.parametrize("concept", ["church", "Vincent van Gogh", "albert einstein"])
def test_no_picture_is_left_that_is_captioned_with_the_concept(concept: str) -> None:
    pixels, labels, captions, details = draw(range(400))
    world = World(*map(torch.from_numpy, (pixels, labels)), captions, torch.from_numpy(details))
    shown = shows(world, [concept])
    assert 0 < shown.sum() < 200
    name = next(name for name in NAMES if name.casefold() == concept.casefold())
    words = (name, *SYNONYMS[name])
    left = [caption for caption, is_shown in zip(captions, shown, strict=True) if not is_shown]
    assert not [caption for caption in left if any(word.casefold() in caption.casefold() for word in words)]


def test_a_concept_that_the_world_does_not_label_is_refused_with_a_hint() -> None:
    with pytest.raises(UserError, match="labels no 'curch'. Did you mean 'church'"):
        labels_of(["curch"])


def test_the_file_says_what_was_left_out_and_the_eraser_puts_all_of_it_on(out: Path, model: Model) -> None:
    (file,) = out.glob("*.safetensors")
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["retrained"])
    assert about["without"] == list(WITHOUT) and about["renders"] == RENDERS and about["left_out"] > 0
    eraser, erased = Retrained(folder=str(out)), task("bomb", "knife", "pistol")
    assert eraser.refuses(model) is None
    edit = eraser.edit(model.pipe, erased)
    before = {name: weight.clone() for name, weight in model.pipe.unet.state_dict().items()}
    trained = load_file(file)
    with edit.applied(model.pipe):
        now = model.pipe.unet.state_dict()
        assert trained.keys() == {f"unet.{name}" for name in now}
        assert all(torch.equal(now[name.removeprefix("unet.")], weight) for name, weight in trained.items())
    after = model.pipe.unet.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert edit.info["training"]["steps"] == FIT.steps


def test_a_run_takes_it_by_the_public_config_and_plans_before_a_model_is_loaded(out: Path, tmp_path: Path) -> None:
    asked = [
        "method=retrained", f"method.folder={out}", "task=unsafe", f"task.erase=[{','.join(WITHOUT).lower()}]",
        "metric=judge", f"store.dir={tmp_path}", "device=cpu", "dry_run=true",
    ]  # fmt: skip
    prepared = prepare(compose(asked))
    assert prepared.hash and "retrained" in prepared.erasers
    run(compose(asked))


def test_as_one_control_among_others_it_is_left_out_where_its_file_is_lacking(out: Path, tmp_path: Path) -> None:
    """By kind, with the command that makes it; alone it is refused."""
    (file,) = out.glob("*.safetensors")
    (tmp_path / "retrained").mkdir()
    (tmp_path / "retrained" / file.name).write_bytes(file.read_bytes())
    asked = [
        "method=redteam", "task=one_each", f"task.unsafe.erase=[{','.join(WITHOUT).lower()}]", "metric=judge",
        "prompts.per_erased=1", "prompts.per_retained=0", "prompts.general=0", f"store.dir={tmp_path}", "device=cpu",
    ]  # fmt: skip
    prepared = prepare(compose(asked))
    rows = [(label, kind) for label, _, kind, _ in prepared.edits() if label in ("retrained", "shuffled")]
    assert ("retrained", "unsafe") in rows and len(rows) == 1 + len(prepared.groups)
    assert {kind for _, kind in prepared.left_out} == {"object", "artist", "celebrity"}
    assert f'--without "Vincent van Gogh" --out {tmp_path}/retrained' in prepared.left_out["retrained", "artist"]
    console = Console(file=StringIO(), width=400)
    run(compose([*asked, "dry_run=true"]), console)
    assert "not run retrained, object: no model in" in console.file.getvalue()
    with pytest.raises(UserError, match="no model in .* was trained without church; make it with"):
        prepare(compose(["method=retrained", "task=object", "task.erase=[church]", *asked[3:]])).hash  # noqa: B018


def test_a_training_may_go_on_from_one_that_saw_none_of_its_concepts_and_from_no_other(
    out: Path, tmp_path: Path
) -> None:
    (start,) = out.glob("*.safetensors")
    with pytest.raises(UserError, match="this model has seen church"):
        retrain(["bomb", "church"], tmp_path, renders=RENDERS, fit=FIT, start=start)
    still = replace(FIT, lr=0.0)
    file = retrain(["bomb"], tmp_path, renders=RENDERS, fit=still, start=start)
    trained, before = load_file(file), load_file(start)
    assert all(torch.allclose(trained[name], weight, atol=1e-6) for name, weight in before.items())
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["retrained"])
    assert about["without"] == ["bomb"] and about["start"]["without"] == list(WITHOUT), (
        "the file says how it came to be"
    )
    with pytest.raises(UserError, match="move it away"):
        retrain(["bomb"], tmp_path, renders=RENDERS, fit=still)


def test_its_row_is_called_by_its_name_wherever_its_files_lie(out: Path) -> None:
    """Distances to it are taken to the row of that name."""
    assert (
        label_of("retrained", Retrained(folder=str(out))).text == Kid(extractor="embedded", against="retrained").beside
    )


def test_what_it_finds_in_the_file_decides_its_key_and_not_the_folder(out: Path, tmp_path: Path) -> None:
    (file,) = out.glob("*.safetensors")
    (tmp_path / "renamed.safetensors").write_bytes(file.read_bytes())
    identity = load_model("embedded", name="embedded").identity
    keys = {Retrained(folder=str(folder)).key(identity, task(*WITHOUT)) for folder in (out, tmp_path)}
    with pytest.raises(UserError, match="was trained anew for another model"):
        Retrained(folder=str(out)).key("sha256-another float32", task(*WITHOUT))
    assert len(keys) == 1
    tensors = load_file(file)
    tensors["unet.conv_in.bias"] += 1
    with safe_open(file, framework="pt") as opened:
        save_file(tensors, tmp_path / "renamed.safetensors", opened.metadata())
    assert Retrained(folder=str(tmp_path)).key(identity, task(*WITHOUT)) not in keys


def test_a_training_that_was_cut_off_ends_with_the_same_weights(out: Path, tmp_path: Path) -> None:
    (tmp_path / "world").symlink_to(out / "world")
    file = retrain(WITHOUT, tmp_path, renders=RENDERS, fit=FIT, stop_at=1)
    assert not file.exists(), "half a training is no model"
    retrain(WITHOUT, tmp_path, renders=RENDERS, fit=FIT)
    whole, cut = (load_file(path) for path in (out / file.name, file))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_what_does_not_fit_is_refused_with_the_cure(out: Path, tmp_path: Path, model: Model) -> None:
    eraser = Retrained(folder=str(out))
    with pytest.raises(
        UserError,
        match="no model in .* was trained without church; make it with: erasebench tiny retrain --without church",
    ):
        eraser.check(model.pipe, task("church", kind="object"))
    with pytest.raises(UserError, match='--without "gas pump" church'):
        eraser.key("m", task("gas pump", "church", kind="object"))
    (file,) = out.glob("*.safetensors")
    for name in ("one", "two"):
        (tmp_path / f"{name}.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="one.safetensors and two.safetensors both leave out"):
        Retrained(folder=str(tmp_path)).check(model.pipe, task(*WITHOUT))
    (tmp_path / "two.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="two.safetensors cannot be read"):
        Retrained(folder=str(tmp_path)).check(model.pipe, task(*WITHOUT))
    (tmp_path / "two.safetensors").unlink()
    tensors = load_file(file)
    del tensors["unet.conv_in.bias"]
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["retrained"]) | {"model": "sha256-another"}
    save_file(tensors, tmp_path / "one.safetensors", {"retrained": json.dumps(about)})
    with pytest.raises(UserError, match="unet.conv_in.bias does not fit"):
        Retrained(folder=str(tmp_path)).check(model.pipe, task(*WITHOUT))
    assert "for another model (sha256-another)" in Retrained(folder=str(tmp_path)).refuses(model)
    with pytest.raises(UserError, match=f"holds {RENDERS} drawings; give --renders {RENDERS}"):
        retrain(["church"], out, renders=RENDERS + 1, fit=FIT)


def test_what_is_no_concept_and_another_training_are_refused_before_any_work(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="labels no 'curch'"):
        retrain(["curch"], tmp_path, renders=RENDERS, fit=FIT)
    assert not list(tmp_path.iterdir())
    (file,) = out.glob("*.safetensors")
    before = file.read_bytes()
    assert retrain(WITHOUT, out, renders=RENDERS, fit=FIT) == file, "there already"
    for other in ({"seed": 1}, {"fit": replace(FIT, steps=3)}):
        with pytest.raises(UserError, match="made with .*; move it away, or give another --out"):
            retrain(WITHOUT, out, **{"renders": RENDERS, "fit": FIT, **other})
    assert file.read_bytes() == before


def test_the_command_asks_for_a_concept_and_sensible_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--steps is 0"):
        main(["--without", "church", "--steps", "0", "--out", str(tmp_path)])
    asked = {}
    monkeypatch.setattr(
        module, "retrain", lambda concepts, out, **options: asked.update(options, concepts=concepts) or out / "x"
    )
    main(["--without", "knife", "bomb", "--out", str(tmp_path), "--steps", "7", "--batch", "3", "--threads", "1"])
    assert asked["concepts"] == ["knife", "bomb"] and (asked["fit"].steps, asked["fit"].batch) == (7, 3)
