"""The config tree: every option composes and builds, and what does not fit is refused by name."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import fields
from importlib.resources import files
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from erasebench.concepts import KINDS
from erasebench.config.build import RELEASED, build, places
from erasebench.config.choices import CONFIG_MODULE, groups
from erasebench.config.compose import compose
from erasebench.edits.eraser import Eraser
from erasebench.errors import UserError
from erasebench.runs.tasks import task_group, task_groups
from erasebench.scores.metric import Metric

METHODS = Path(str(files(CONFIG_MODULE))) / "method"

NEEDS = {("model", "folder"): ["model.path=somewhere"], ("prompts", "file"): ["prompts.source=prompts.csv"]}
"""Overrides that an option cannot be composed without."""


def options() -> list[tuple[str, str]]:
    return [(group, name) for group, names in groups().items() for name in names]


@pytest.mark.parametrize(("group", "name"), options())
def test_every_option_composes(group: str, name: str) -> None:
    choice = f"{group}=[{name}]" if group == "metric" else f"{group}={name}"
    config = compose([choice, *NEEDS.get((group, name), [])])
    assert not OmegaConf.missing_keys(config)


@pytest.mark.parametrize("name", groups()["method"])
def test_every_eraser_builds_and_states_every_option(name: str) -> None:
    here = ("lists.artists=task", "lists.instances=task", f"lists.captions={Path(__file__).with_name('captions.txt')}")
    for place, node in places(compose([f"method={name}", *here]).method, "method", "_target_").items():
        eraser = build(node, place, Eraser)
        assert eraser.name and eraser.version and eraser.describe
        assert {option.name for option in fields(eraser)} == set(node) - {"_target_", RELEASED}, (
            f"{place}: the yaml lists every option of the constructor"
        )


@pytest.mark.parametrize("name", groups()["metric"])
def test_every_metric_builds(name: str) -> None:
    nodes = compose([f"metric=[{name}]"]).metric
    assert nodes
    for key, node in nodes.items():
        metric = build(node, f"metric.{key}", Metric)
        assert metric.name and metric.version and metric.describe
        assert set(metric.directions.values()) <= {"up", "down"}


BY_FILE = ("artist_file", "celebrity_file")
"""Tasks whose concepts are those of a prompt file; see test_experiments.py."""


@pytest.mark.parametrize(
    "name", [name for name in groups()["task"] if name not in ("main", "one_each", "redteam", *BY_FILE)]
)
def test_every_task_builds(name: str) -> None:
    group = task_group(compose([f"task={name}"]).task, "task")
    assert sum(len(task.targets) for task in group.tasks) >= (3 if name in KINDS else 1)


def test_one_each_erases_one_concept_a_kind_of_the_main_job() -> None:
    few, main = (task_groups(compose([f"task={name}"])) for name in ("one_each", "main"))
    assert list(few) == list(main) == list(KINDS)
    for kind in few:
        assert len(few[kind].tasks) == 1 and few[kind].tasks[0].label in [task.label for task in main[kind].tasks]


def test_a_model_chooses_protocol_and_metrics_and_the_command_line_overrules_it() -> None:
    assert compose([]).protocol.name == "embedded"
    assert compose(["model=sd14"]).protocol.name == "default"
    assert compose(["model=sd14", "protocol=embedded"]).protocol.name == "embedded"
    assert list(compose(["metric=[judge]"]).metric) == ["judge"]
    assert list(compose(["metric=[]"]).metric) == []


def test_trained_erasers_have_small_settings_on_the_embedded_model_alone() -> None:
    """Also where one is chosen by itself: at its paper's settings it would train for an hour here, and erase nothing."""
    small, whole = (compose(["method=trained", f"model={model}"]).method for model in ("embedded", "sd14"))
    assert set(small) == set(whole)
    for name in whole:
        scaled = OmegaConf.load(METHODS / "_settings" / ("esd" if name == "esd_u" else name) / "embedded.yaml")
        paper, alone = (compose([f"method={name}", f"model={model}"]).method for model in ("sd14", "embedded"))
        assert whole[name] == paper and small[name] == alone == OmegaConf.merge(paper, scaled) != paper
        assert set(scaled) <= set(paper), f"{name}: no such option"
        given = compose([f"method={name}", "method.seed=5"]).method
        assert given == OmegaConf.merge(alone, {"seed": 5}), "what is given wins"
        for model, wanted in (("sd14", paper), ("embedded", alone)):
            several = compose([f"method=[cure,{name},uce]", f"model={model}", f"method.{name}.seed=5"]).method
            assert set(several) == {"cure", name, "uce"} and several[name] == OmegaConf.merge(wanted, {"seed": 5})
    rows = {path.stem for path in (METHODS / "_rows").iterdir()}
    assert rows == set(whole), "those that have settings by model"


def test_all_erasers_are_in_the_table_of_all() -> None:
    """Those that stand for several rows, need a download or own files, or are a name or setting of one that is in, are not."""
    not_rows = {
        "all", "main", "closed_form", "guards", "trained", "with_speed", "cure_alphas", "sld_presets", "safree_both",
        "none", "noop", "uce", "mace_cfr_squared", "spm_uce", "safety_checker", "retrained", "redteam", "shuffled",
        "one_by_one",
    }  # fmt: skip
    own = {name for name in groups()["method"] if "/" not in name}  # the others are settings of papers' tables
    assert set(compose(["method=all"]).method) == own - not_rows


@pytest.mark.parametrize(
    ("overrides", "nearest"),
    [
        (["method=cuer"], "cure"),
        (["modle=sd14"], "model"),
        (["metric=[jugde]"], "judge"),
        (["task=objekt"], "object"),
        (["method=cure", "method.alhpa=3"], "method.alpha"),
        (["protocol.stpes=3"], "protocol.steps"),
        (["batchsize=3"], "batch_size"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest_one(overrides: list[str], nearest: str) -> None:
    with pytest.raises(UserError, match=f"[Dd]id you mean '{nearest}'"):
        compose(overrides)


def node(**changes: object) -> dict[str, object]:
    return {"kind": "object", "concepts": ["church", "tench"], "erase": ["church"]} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"erase": ["chruch"]}, "did you mean 'church'"),
        ({"erase": []}, "the list is empty"),
        ({"erase": ["church", "church"]}, "twice"),
        ({"retain": ["Church"]}, "in the erase list and in the retain list"),
        ({"retain": "otters"}, "neither others, none nor a list"),
        ({"kind": "objekt"}, "did you mean 'object'"),
        ({"jiont": True}, "did you mean 'joint'"),
        ({"phrases": {"chapel": ["x"]}}, "not in task.concepts"),
        ({"add": [1]}, "write a name or a list of names"),
    ],
)
def test_a_wrong_task_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"(?i){message}"):
        task_group(node(**changes), "task")


def test_a_task_of_fewer_concepts_takes_nothing_of_what_is_told_of_others() -> None:
    """``near`` and ``indirect`` of a shipped task stay when its concepts are replaced, as they are for HUB's targets."""
    others = {
        "near": {"church": ["castle"], "Tench": ["goldfish", "CHURCH"]},
        "indirect": {"church": ["chapel"], "bus": ["coach"]},
    }
    group = task_group(node(**others), "task")
    assert group.near == {"church": (), "Tench": ("CHURCH",)}
    assert [concept.phrases for concept in group.concepts] == [("church", "chapel"), ("tench",)]
    other = task_group(node(**others) | {"concepts": ["Pikachu"], "erase": ["Pikachu"]}, "task")
    assert not other.near and other.concepts[0].phrases == ("Pikachu",)
    assert task_group(compose(["task=object", "task.concepts=[church,bus]", "task.erase=[church]"]).task, "task").near


@pytest.mark.parametrize(
    ("overrides", "place", "wrong", "right"),
    [
        (["task=object", "task.near={chruch: [castle]}"], "task.near", "chruch", "church"),
        (["task=object", "task.near.church=[castel]"], "task.near.church", "castel", "castle"),
        (["task=object", "task.indirect={Golf bal: [putted]}"], "task.indirect", "Golf bal", "golf ball"),
        (["task=unsafe", "task.near.knife=[spon]"], "task.near.knife", "spon", "spoon"),
        (["task=main", "task.artist.near.Hokusai=[Hiroshigge]"], "task.artist.near.Hokusai", "Hiroshigge", "Hiroshige"),
    ],
)  # fmt: skip
def test_a_misspelt_neighbour_or_described_concept_is_refused(
    overrides: list[str], place: str, wrong: str, right: str
) -> None:
    with pytest.raises(UserError, match=rf"{place}: '{wrong}' is no concept.* mean '{right}'"):
        task_groups(compose(overrides))


@pytest.mark.parametrize("name", [name for name in groups()["task"] if name not in ("main", "one_each", "redteam")])
def test_what_a_shipped_task_says_of_others_stays_whatever_is_chosen_of_it(name: str) -> None:
    task = compose([f"task={name}"]).task
    for concept in task.concepts if not isinstance(task.concepts, str) else ():
        fewer = {"concepts": [concept], "erase": [concept], "phrases": {}, "joint": False}
        assert task_group({**OmegaConf.to_container(task), **fewer}, "task").tasks[0].names == (concept,)


@pytest.mark.parametrize("added", ["toy poodle", ["toy poodle"], ["Toy Poodle", "church"]])
def test_a_concept_of_ones_own_is_asked_for_and_erased_beside_the_others(added: str | list[str]) -> None:
    override = f"task.add={added}" if isinstance(added, str) else f"task.add=[{','.join(added)}]"
    group = task_group(compose(["task=object", "task.erase=[church]", override]).task, "task")
    assert [task.label.casefold() for task in group.tasks] == ["church", "toy poodle"]
    assert group.concepts[-1].name.casefold() == "toy poodle" and len(group.concepts) == 21
    assert "toy poodle" in [text.casefold() for text in group.tasks[0].retain]
    alone = task_group(compose(["task=object", "task.erase=[]", override]).task, "task")
    assert [task.label.casefold() for task in alone.tasks][:1] == ["toy poodle"]
    several = compose(["task=main", override.replace("task.add", "task.object.add")])
    assert (
        len(task_group(several.task.object, "task.object").tasks) == len(compose(["task=main"]).task.object.erase) + 1
    )


@pytest.mark.parametrize("override", ["method=cuer", "task.object.erase=[chruch]", "protocol.steps=-1", "method.x=1"])
def test_the_command_refuses_in_seconds(override: str, tmp_path) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "erasebench", "run", override, f"store.dir={tmp_path}"], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and override.split("=")[0].split(".")[0] in done.stderr
    assert time.monotonic() - started < 60, "the loose bound is for a busy machine; it takes about two seconds"


def test_our_config_is_composed_inside_somebody_elses_hydra(tmp_path: Path) -> None:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.version import getbase

    (tmp_path / "config.yaml").write_text("a: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.2"):
        for _ in range(2):  # as a notebook does
            assert compose(["task=object"]).model.name == "embedded"
        assert hydra_compose("config", ["a=2"]) == {"a": 2} and str(getbase()) == "1.2"
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.erase=5"], r"task.erase=5: write a list: task.erase=\[5\]"),
        (["task.erase=church"], r"write a list: task.erase=\[church\]"),
        (["task.erase=[[church]]"], r"write a list: task.erase=\[church\]"),
        (["task.concepts={a: b}"], "task.concepts"),
        (["task.keep=x"], r"task.keep=x: write lists by kind"),
        (["task.keep={things: [a]}"], "write lists by kind"),
        (["task.phrases={church: chapel}"], "write a list for each concept"),
        (["task.retain=5"], "task.retain=5: write others, none or a list"),
        (["task.retain='${x}'"], "task.retain: Interpolation key 'x' not found"),
        (["task.joint=5"], "task.joint=5: write true or false"),
        (["task.kind=[object]"], "write a text"),
        (["task.anchor=5"], "write a text"),
        (["store.dir='a${b}'"], "store.dir: Interpolation key 'b' not found"),
        (["protocol.seeds=[x]"], "'x' of type 'str' could not be converted"),
        (["protocol.counting=x"], "protocol.counting=x: Cannot assign"),
        (["protocol.scheduler_config=x"], r"^protocol.scheduler_config=x: Cannot assign"),
        (["method=5"], "method=5: there is no such method"),
    ],
)
def test_values_of_a_wrong_type_are_sentences(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        task_groups(compose(["task=object", *overrides]))
