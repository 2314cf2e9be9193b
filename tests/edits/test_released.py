"""Rows as released: what an experiment runs is what the release runs, and a row says what is not so.

The values are literals with their public source, so that neither the config nor ``data/released.csv`` is its own judge.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from erasebench.config.build import build, places
from erasebench.config.choices import groups
from erasebench.config.compose import compose
from erasebench.config.values import plain_values
from erasebench.edits.eraser import Eraser
from erasebench.edits.label import Label, label_of
from erasebench.edits.released import (
    changed_settings,
    check_lists,
    deviations,
    known_lists,
    label_as_released,
    list_content,
    releases,
    setting_in,
)
from erasebench.errors import UserError
from erasebench.tables.published_match import Ran, eraser_mismatches

UCE = "rohitgandikota/unified-concept-editing@bd5fb51:train-scripts/train_erase.py"
RECE = "CharlesGong12/RECE@403a67f"
SPEED = "Ouxiang-Li/SPEED@6d3df0c"
MACE = "Shilin-LU/MACE@6f7b544:configs"

OF_PAPERS = [name for name in groups()["experiment"] if name not in ("redteam", "merasurebench")]
"""The experiments but our own, whose erasers have settings for the embedded model."""

ARTISTS, INSTANCES, CAPTIONS = "artists.csv", "instances.csv", "captions.txt"
FILES = (f"lists.artists={ARTISTS}", f"lists.instances={INSTANCES}", f"lists.captions={CAPTIONS}")

RELEASED: list[tuple[str, str, dict[str, Any], str]] = [
    # experiments, row, what it must have, where that was read
    ("uce_objects uce_nudity rece_objects rece_nudity rece_unsafe mace_explicit speed_nudity cure_objects cure_i2p "
     "unlearndiffatk_nudity safree_redteam cure_redteam_mma",
     "uce__released", {"preserve": "none", "preserve_scale": None, "anchor": "", "lam": 0.5, "variant": "2023"},
     f"{UCE}:retain_texts = [''] + []"),
    ("uce_artists rece_artists rece_artists_living mace_artists_100 speed_few_artists cure_artists safree_artists",
     "uce__released", {"preserve": ARTISTS, "preserve_scale": None, "anchor": "art", "lam": 0.5},
     f"{UCE}:artists1734_prompts.csv"),
    ("rece_nudity rece_redteam uce_nudity cure_i2p mace_explicit speed_nudity unlearndiffatk_nudity cure_redteam_p4d",
     "rece__released", {"regular_scale": 0.1, "epochs": 3, "preserve": "none", "start_preserve_scale": 1.0, "lam": 0.1},
     f"{RECE}:README.md:Notes 1"),
    ("rece_unsafe", "rece__released", {"regular_scale": 0.1, "epochs": 2, "preserve": "none", "anchor": ""},
     f"{RECE}:README.md:Notes 1, train.py:'i2p'"),
    ("rece_artists rece_artists_living cure_artists_living speed_few_artists", "rece__released",
     {"regular_scale": 0.001, "epochs": 1, "preserve": ARTISTS, "start_preserve_scale": 0.1, "anchor": "art"},
     f"{RECE}:README.md:Notes 2, scripts/art.sh"),
    ("rece_objects uce_objects cure_objects cure_efficiency", "rece__released",
     {"concepts.church": "hard", "concepts.garbage truck": "hard", "concepts.English springer": "easy",
      "concepts.golf ball": "easy", "concepts.parachute": "easy", "others": "uce", "erasers.uce.epochs": 0,
      "erasers.hard.regular_scale": 0.001, "erasers.easy.regular_scale": 0.1, "erasers.hard.epochs": 1,
      "erasers.easy.epochs": 1, "erasers.hard.preserve": "none", "erasers.uce.preserve": "none",
      "erasers.uce.start_preserve_scale": 1.0},
     f"{RECE}:README.md:Notes 3 to 5"),
    ("speed_few_1 speed_few_2 speed_few_3", "speed__released",
     {"retain": INSTANCES, "anchor": "", "threshold": 0.1, "params": "V", "aug": 10}, f"{SPEED}:scripts/eval_few.sh"),
    ("speed_few_artists", "speed__released", {"retain": ARTISTS, "anchor": "art", "threshold": 0.1},
     f"{SPEED}:scripts/eval_few.sh"),
    ("speed_celebrities_10 speed_celebrities_50 speed_celebrities_100", "speed__released",
     {"anchor": "person", "threshold": 1e-4, "retain_scale": 0.05, "filter": False, "lamb": 0.0, "retain": "task"},
     f"{SPEED}:scripts/eval_multi.sh"),
    ("ant_explicit", "speed__released", {"retain_scale": 0.7, "lamb": 0.5, "token_rule": "last_content"},
     f"{SPEED}:train_erase_null.py: all rows for ['nudity'] alone"),
    ("speed_nudity speed_coco_nudity", "speed__released",
     {"retain": "none", "retain_scale": 0.7, "lamb": 0.5, "token_rule": "no_bos"}, f"{SPEED}:scripts/eval_nudity.sh"),
    ("mace_celebrities_1", "mace__released",
     {"refinement.anchor": "a woman", "refinement.domain_weight": 8e3, "lr": 1e-4, "iterations": 50,
      "refinement.lam": 0.0, "refinement.preserve": CAPTIONS}, f"{MACE}/celebrity/erase_cele_1.yaml"),
    ("mace_celebrities_10", "mace__released", {"refinement.anchor": "a person", "refinement.domain_weight": 8e4, "refinement.squared_scale": True},
     f"{MACE}/celebrity/erase_cele_10.yaml"),
    ("mace_celebrities_5", "mace__released", {"refinement.anchor": "a person", "refinement.domain_weight": 5e4},
     f"{MACE}/celebrity/erase_cele_5.yaml"),
    ("mace_celebrities_100 ant_celebrities_100", "mace__released",
     {"refinement.anchor": "a person", "refinement.domain_weight": 2e5}, f"{MACE}/celebrity/erase_cele_100.yaml"),
    ("mace_artists_100 ant_artists_100", "mace__released",
     {"refinement.anchor": "art", "refinement.domain_weight": 8e4, "lr": 1e-4, "refinement.preserve_scale": 1e-4},
     f"{MACE}/art/erase_art_100.yaml"),
    ("mace_explicit", "mace__released",
     {"refinement.anchor": "a person wearing clothes", "iterations": 120, "lr": 1e-5, "refinement.domain": "none",
      "refinement.preserve_scale": 7e-7}, f"{MACE}/explicit_content/erase_explicit_content.yaml"),
    ("mace_objects", "mace__released",
     {"erasers.ship.refinement.lam": 1e3, "erasers.ship.refinement.anchor": "ground", "erasers.ship.iterations": 50,
      "erasers.automobile.refinement.lam": 1e2, "erasers.automobile.refinement.anchor": "sky",
      "erasers.bird.refinement.lam": 1e1, "erasers.bird.refinement.anchor": "street",
      "erasers.bird.refinement.domain": "none"}, f"{MACE}/object"),
    ("esd_artists", "esd_x__released", {"train": "x", "iterations": 1000, "lr": 1e-5, "eta": 1.0, "release": 2023},
     "rohitgandikota/erasing@6eb7dc8:train-scripts/train-esd.py"),
    ("esd_objects esd_nudity", "esd_u__released", {"train": "u", "iterations": 1000, "lr": 1e-5, "eta": 1.0},
     "rohitgandikota/erasing@6eb7dc8:train-scripts/train-esd.py"),
    ("mace_explicit mace_coco_explicit ant_explicit", "sld_medium__released", {"preset": "medium", "text": "safety"},
     "ml-research/safe-latent-diffusion:src/sld/sld_pipeline.py"),
    ("mace_objects mace_artists_100", "sld_medium__released", {"preset": "medium", "text": "task"}, "our choice"),
    ("ant_explicit", "receler__released",
     {"iterations": 500, "lr": 3e-4, "inner": 128, "words": 16, "attack_steps": 50, "localised": 0.1, "threshold": 0.1,
      "as_released": True}, "jasper0314-huang/Receler@00ba63e:train_receler.py"),
    ("spm_artists", "spm__released",
     {"gate_scale": 2.0, "as_released": True, "eta": 1.0, "anchoring": 1000.0, "iterations": 3000},
     "CVPR 2024 paper, Con6924/SPM@7dcfd21:evaluate_task.py:--facilitate_factor"),
    ("spm_instances_1 spm_instances_2 spm_instances_3", "spm__released", {"gate_scale": 1.0, "as_released": True},
     "Con6924/SPM@7dcfd21:configs/snoopy"),
    ("spm_nudity ant_explicit", "spm__released",
     {"gate_scale": 2.0, "eta": 3.0, "anchoring": 100.0, "iterations": 15000, "as_released": True}, "CVPR 2024 paper"),
    ("trce_sexual", "trce_full__released", {"as_released": True, "stage1.squared_scale": True, "iterations": 300},
     "ddgoodgood/TRCE@0da9b71:run_trce_stage2.py"),
    ("sld_i2p", "sld_max__released", {"preset": "max", "text": "safety"}, "ml-research/safe-latent-diffusion:README.md"),
    ("safree_redteam", "safree__released", {"variant": "released", "alpha": 0.01}, "jaehong31/SAFREE@b8b2c3f"),
    ("cure_i2p cure_objects cure_artists cure_number", "cure__released", {"alpha": None, "retain": "none"},
     "arXiv 2505.12677: 2, and 5 for unsafe content"),
]  # fmt: skip
TABLE = [
    (name, row, option, value, source)
    for names, row, values, source in RELEASED
    for name in names.split()
    for option, value in values.items()
]


@cache
def method(*overrides: str) -> dict[str, dict[str, Any]]:
    """The rows of a config by their keys."""
    return plain_values(compose([*overrides, *FILES]).method)


@pytest.mark.parametrize(("name", "row", "option", "value", "source"), TABLE)
def test_an_experiment_has_the_settings_of_the_release(
    name: str, row: str, option: str, value: Any, source: str
) -> None:
    node = method(f"experiment={name}")[row]
    assert setting_in(node, option) == value, f"{source} has {value}"
    around, _, last = option.rpartition(".")
    assert last in (setting_in(node, around) if around else node), "None is a value, and not what is absent"


def test_every_experiment_names_the_release_of_each_of_its_erasers() -> None:
    for name in OF_PAPERS:
        for place, node in method(f"experiment={name}").items():
            assert deviations(node) is not None, f"{name}: {place} has settings of nobody"
            assert not {option for option in deviations(node) if setting_in(node, option) is not None} - {
                *("preserve", "retain", "refinement.preserve", "stage1.preserve"),  # files that are not here
                *(choice.option for choice in releases()[node["released"]] if choice.what != "setting"),
                *(("alpha",) if name == "cure_alpha" else ()),  # its table varies it
            }, f"{name}: {place} is not as released"


def test_the_words_and_the_numbers_of_the_releases_are_whole() -> None:
    words = "hate, harassment, violence, suffering, humiliation, harm, suicide, sexual, nudity, bodily fluids, blood"
    task = compose(["experiment=rece_unsafe"]).task
    assert list(task.erase) == words.split(", ") and task.joint, "CharlesGong12/RECE@10ea80d:train.py:'i2p'"
    assert len(compose(["method=released/safree_nudity"]).method.safree__released.texts) == 17
    for choices in releases().values():
        for choice in choices:
            assert choice.source and (choice.what in ("setting", "note")) == (not choice.ours), choice


def label(node: dict[str, Any], name: str) -> Label:
    return label_as_released(label_of(name, build(node, f"method.{name}", Eraser)), node)


def test_a_label_says_as_released_or_what_is_not() -> None:
    node = method("method=released/uce")["uce__released"]
    assert deviations(node) == {} and label(node, "uce").text == "uce as released"
    changed = {**node, "lam": 0.1, "phrases": False}
    assert deviations(changed) == {"lam": 0.1, "phrases": False}
    assert label(changed, "uce").text == "uce as released phrases=False lam=0.1"
    own = plain_values(compose(["method=uce"]).method)
    assert deviations(own) is None and label(own, "uce").text == "uce", "settings of ours claim no release"
    rece = method("method=released/rece_nudity")["rece__released"]
    assert label(rece, "rece").text == "rece as released but for checkpoint"
    assert "detector" in deviations(rece)["checkpoint"]
    hard = {**(objects := method("method=released/rece_objects")["rece__released"])}
    hard["erasers"] = {**objects["erasers"], "hard": {**objects["erasers"]["hard"], "regular_scale": 0.5}}
    assert label(objects, "rece").text == "rece as released"
    assert label(hard, "rece").text == "rece as released erasers.hard.regular_scale=0.5"


@pytest.mark.parametrize(
    ("release", "row", "option", "value"),
    [
        ("rece_objects", "rece", "erasers.easy.phrases", False),
        ("rece_objects", "rece", "concepts.tench", "hard"),
        ("mace_explicit", "mace", "refinement.templates", ["{}"]),
        ("mace_objects", "mace", "erasers.ship.refinement.squared_scale", True),
        ("trce_sexual", "trce_full", "stage1.templates", ["{}"]),
        ("esd_x", "esd_x", "optimizer", "adafactor"),
        ("spm_artists", "spm", "phrases", False),
        ("uce", "uce", "_target_", "somebody.Else"),
    ],
)
def test_an_option_that_no_row_names_counts_too_at_any_depth(release: str, row: str, option: str, value: Any) -> None:
    node = method(f"method=released/{release}")[f"{row}__released"]
    assert option not in changed_settings(node)
    around: Any = node
    *way, last = option.split(".")
    for part in way:
        around = around[part]
    assert around.get(last) != value
    around |= {last: value}  # of the composed copy
    try:
        assert changed_settings(node)[option] == value and deviations(node)[option] == value
        assert option in " ".join(eraser_mismatches("row", Ran({}, erasers={"row": node}))[0])
    finally:
        method.cache_clear()


def test_which_random_numbers_a_training_draws_is_no_deviation() -> None:
    node = method("method=released/esd_x", "model=sd14")["esd_x__released"]
    assert deviations({**node, "seed": 7, "save_memory": True}) == deviations(node) == {}


def test_what_no_source_tells_is_our_choice_and_has_rows_of_other_choices() -> None:
    rows = method("method=released/cure")
    texts = [label(node, "cure").text for node in rows.values()]
    assert texts == ["cure our choice", "cure our choice token_rule=mean", "cure our choice retain=task"]
    assert all({"token_rule", "retain"} <= set(deviations(node)) for node in rows.values())
    assert [deviations(node)["retain"] for node in rows.values()] == ["none", "none", "task"]
    assert "measuring" in deviations(rows["cure__released"])["token_rule"], "a rule by kind, in words"
    assert deviations(rows["cure__tokens"])["token_rule"] == "mean"


@pytest.mark.parametrize("name", OF_PAPERS)
def test_where_a_setting_is_unknown_other_choices_are_rows_beside_it(name: str) -> None:
    rows = list(method(f"experiment={name}").values())
    for row in rows:
        if any(choice.what == "unknown" for choice in releases()[row["released"]]):
            others = [other for other in rows if other["released"] == row["released"] and other != row]
            assert others, f"{name}: {row['released']} has a choice of ours, and no row of another one"


def test_a_list_counts_by_its_names(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "style.csv"
    file.write_text("id,concept\n1,Monet\n2,Degas\n3,monet\n", encoding="utf-8")
    other = tmp_path / "names.txt"
    other.write_text("DEGAS\nMonet\n", encoding="utf-8")
    assert list_content(str(file)) == list_content(str(other)), "in any order, case and form"
    node = method("method=released/uce_artists")["uce__released"] | {"preserve": str(file)}
    assert deviations(node) == {"preserve": str(file)}, "names that are not the release's"
    known = known_lists()["artists"]
    changed = {"artists": type(known)(known.name, known.says, known.file, list_content(str(other)))}
    monkeypatch.setattr("erasebench.edits.released.known_lists", lambda: changed)
    assert deviations(node) == {}


@pytest.mark.parametrize(
    ("option", "row", "message"),
    [
        ("uce_artists", "uce", r"preserve: needs the list of 1734 artists.*style\.csv.*lists\.artists=FILE"),
        ("speed_instances", "speed", r"retain: needs the list of 1352.*SPEED@6d3df0c:data/instance\.csv"),
        ("mace_explicit", "mace", r"refinement\.preserve: needs the captions of COCO 2014.*captions_train2014\.json"),
    ],
)
def test_a_list_that_is_not_given_is_refused_with_its_file(option: str, row: str, message: str) -> None:
    node = plain_values(compose([f"method=released/{option}"]).method)[f"{row}__released"]
    with pytest.raises(UserError, match=message):
        check_lists(node, f"method.{row}__released")


def test_a_release_that_nobody_made_is_refused() -> None:
    with pytest.raises(UserError, match="released: rece_nudty: no such release. Did you mean 'rece_nudity'"):
        deviations({"released": "rece_nudty"})


def test_places_of_released_rows_are_erasers_of_their_own() -> None:
    both = compose(["method=[released/rece_nudity,rece]"]).method
    assert list(places(both, "method", "_target_")) == ["method.rece__released", "method.rece"]
