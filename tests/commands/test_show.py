"""From an image back to all that is known of it, and forth."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from table_helpers import make_plan, make_scores, make_store

from erasebench.commands.list import eraser_classes
from erasebench.commands.show import main, show
from erasebench.config.choices import groups, option_text
from erasebench.edits.eraser import Change, Edit
from erasebench.edits.found import Found
from erasebench.errors import UserError
from erasebench.recipe import Recipe
from erasebench.store import Store

EDIT = "ab" * 16

RECIPE = {
    "model": "small", "revision": "r", "edit": "", "prompt": "a church", "negative_prompt": "", "seed": 1, "steps": 2,
    "guidance": 4.0, "width": 8, "height": 8, "scheduler": "DDIMScheduler", "scheduler_config": "{}", "dtype": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def plan():
    return make_plan(prompts=2)


@pytest.fixture(scope="module")
def store(plan, tmp_path_factory: pytest.TempPathFactory):
    store = make_store(tmp_path_factory.mktemp("results"), plan)
    for metric, scores in make_scores(plan).items():
        store.put_scores(metric, scores)
    changes = {
        "unet.a.attn2.to_k.weight": Change(delta=torch.eye(3)),
        "unet.b.attn2.to_v.weight": Change(delta=2 * torch.eye(3)),
    }
    store.put_edit(EDIT, Edit(changes, {"method": "cure", "settings": {"alpha": 2.0}}))
    for name in ("objects-small-1", "objects-small-2"):
        folder = store.run_folder(name)
        manifest = {
            "command": ["erasebench", "run", "task.erase=[church, gas pump]"],
            "metrics": {},
            "packages": {"x": "1"},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        plan.to_parquet(folder / "plan.parquet")
    (folder / "tables").mkdir()
    (folder / "tables" / "object.md").write_text("table")
    return store


@pytest.fixture(scope="module")
def row(plan):
    return plan[(plan.eraser == "cure") & (plan.role == "erase") & (plan.task == "church")].iloc[0]


def test_an_attack_by_key_and_below_an_image_of_it(tmp_path) -> None:
    store = Store(tmp_path)
    key = "cd" * 16
    store.put_attack(key, Found(prompt="chapel \x1b[31m", info={"attack": "ring_a_bell", "loss": 1.5}))
    store.put_attack("ce" * 16, Found(embedding=torch.ones(77, 8)))
    for text in (show(store, key), show(store, "cdcd")):
        assert key in text and "ring_a_bell" in text and "1.5" in text and "chapel" in text
        assert "\x1b" not in text, "a sign that steers a terminal is written out"
    assert "a tensor [77, 8]" in show(store, "cece")
    recipe = Recipe(**RECIPE, attack=key)
    store.put_image(recipe, Image.new("RGB", (8, 8)), {})
    assert "chapel" in show(store, recipe.key) and f"attack {key}" in show(store, recipe.key)
    store.attack_path(key).unlink()
    assert "what it found is not here" in show(store, recipe.key)
    with pytest.raises(UserError, match=f"Did you mean '{'ce' * 16}'"):
        show(store, "cecece00")


def test_an_image_by_key_or_first_digits_says_everything(store, row) -> None:
    text = show(store, row.key)
    for said in (
        row.key,
        row.prompt,
        str(row.seed),
        row.edit_key,
        row.original_key,
        "church erased",
        "nothing",
        "classifier@1",
    ):
        assert said in text, said
    assert str(store.image_path(row.key)) in text and "objects-small-2: cure" in text
    assert show(store, row.key[:12]) == text and show(store, row.key[:12].upper()) == text


def test_an_image_of_many_tasks_names_them_all(store, plan) -> None:
    shared = plan[(plan.eraser == "none") & (plan.label == "tench")].iloc[0]
    text = show(store, shared.key)
    assert "church erased, retain tench" in text and "gas pump erased, retain tench" in text


def test_a_png_that_was_moved_away_is_known_by_what_it_holds(store, row, tmp_path: Path) -> None:
    moved = tmp_path / "my picture.png"
    shutil.copy(store.image_path(row.key), moved)
    text = show(store, str(moved))
    assert row.prompt in text and "classifier@1" in text and str(moved) in text


def test_an_edit_and_what_it_changes_most(store) -> None:
    text = show(store, EDIT[:8])
    assert "cure" in text and '"alpha": 2.0' in text
    assert text.index("unet.b.attn2") < text.index("unet.a.attn2")


def test_a_run_says_what_it_left_and_how_to_remake_it(store, plan) -> None:
    text = show(store, "objects-small-2")
    assert f"{plan.key.nunique()} images, 0 of them missing" in text
    assert "tables/object.md" in text and "again: erasebench run 'task.erase=[church, gas pump]'" in text
    assert "objects-small-1" in show(store, "objects-small-1")


def test_names_that_fit_several_things_are_refused_with_all_of_them(store) -> None:
    with pytest.raises(UserError, match="2 things begin so .*run objects-small-1, run objects-small-2"):
        show(store, "objects")


def test_what_is_not_there_is_answered_with_what_is_nearest(store, row) -> None:
    wrong = row.key[:8] + ("0" if row.key[8] != "0" else "1") + row.key[9:]
    with pytest.raises(UserError, match=f"Did you mean '{row.key}'"):
        show(store, wrong)
    with pytest.raises(UserError, match="Did you mean 'objects-small-[12]'.*Runs: objects-small-1, objects-small-2"):
        show(store, "object-smal-1")
    with pytest.raises(UserError, match="no image, edit, attack or run"):
        show(store, "../../etc/passwd")
    with pytest.raises(UserError, match="no such file"):
        show(store, "nowhere.png")


def test_a_picture_from_elsewhere_is_refused_in_words(store, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n")
    for name, message in (("other.png", "holds no recipe of erasebench"), ("cut.png", "not a whole PNG")):
        with pytest.raises(UserError, match=message):
            show(store, str(tmp_path / name))


@pytest.mark.parametrize("name", ["redteam", "merasurebench"])
def test_the_page_of_an_experiment_with_several_tasks_and_attacks_names_them(name: str, capsys) -> None:
    assert main(["experiment", name]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "erased: church, of kind object; Vincent van Gogh, of kind artist; Albert Einstein, of kind celebrity;" in text
    )
    assert "metrics: judge attacks: " in text


def test_the_page_of_an_experiment_has_every_choice_as_released_ours_and_where_it_was_read(capsys) -> None:
    from erasebench.commands import show as command

    assert command.main(["experiment", "rece_nudity", "method.rece__released.lam=0.3"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "experiment rece_nudity: RECE (ECCV 2024), nudity table" in text
    assert "regular_scale 0.1; ours: the same [CharlesGong12/RECE@403a67f:README.md:Notes 1]" in text
    assert "lam 0.1; ours: 0.3 [" in text
    amiss = text.partition("what is not as released")[2]
    assert "method.rece__released: lam: 0.3" in amiss and "checkpoint: the last round" in amiss
    assert "method.uce__released" not in amiss, "as released"
    assert command.main(["experiment", "uce_artists"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "the list of 1734 artists; ours: lists.artists, not given: Ouxiang-Li/SPEED@6d3df0c:data/style.csv" in text
    with pytest.raises(UserError, match="no such experiment. Did you mean 'rece_nudity'"):
        command.main(["experiment", "rece_nudty"])


@pytest.mark.parametrize("name", groups()["method"])
def test_the_page_of_a_method_says_what_it_is_and_every_option(name: str, capsys) -> None:
    assert main(["method", name]) == 0
    text = capsys.readouterr().out
    for kind in eraser_classes(name):
        assert kind.name in text and kind.describe in text
        assert all(why.split()[0] in text for why in kind.unsupported.values())
    assert "``" not in text and ":class:" not in text and f"run method={name}" in text
    node = yaml.safe_load(option_text("method", name))
    for option in node:
        if option not in ("_target_", "defaults"):
            assert re.search(rf"^  {option}:", text, re.MULTILINE), option
    assert "_target_" not in text and "defaults" not in text.partition("options of")[2]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("trce_full", ["never set to zero", "one step more than their timestep"]),
        ("advunlearn", ["add up", "counted in words", "before its last step"]),
        ("receler", ["all of it for one concept"]),
    ],
)
def test_the_defects_of_a_release_are_explained_and_off(name: str, words: list[str], capsys) -> None:
    main(["method", name])
    text = " ".join(capsys.readouterr().out.split())
    assert all(word in text for word in words) and "as_released: false #" in text


def test_no_method_of_a_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="show method mase: no such method. Did you mean 'mace'"):
        main(["method", "mase"])
