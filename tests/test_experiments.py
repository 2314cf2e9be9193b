"""Experiments: every published table composes and plans, and small ones run whole on the embedded model."""

from __future__ import annotations

import csv
import io
import re
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from erasebench.commands.run import overrides_in
from erasebench.config.choices import groups
from erasebench.config.compose import TINY, at_scale, compose
from erasebench.errors import UserError
from erasebench.images.generate import device_name
from erasebench.models.load import load_model
from erasebench.recipe import Recipe
from erasebench.run import run
from erasebench.runs.estimate import Cost, estimate, images_without_a_model
from erasebench.runs.folder import metrics_of, read_plan
from erasebench.runs.plan import drawn, make_plan, prepare
from erasebench.runs.tasks import task_groups
from erasebench.store import Store
from erasebench.tables import published_match
from erasebench.tables.measure import measure_asked
from erasebench.tables.published import beside
from erasebench.tables.published_data import load_published
from erasebench.tables.published_match import Ran
from erasebench.tables.tabulate import tabulate

OWN = {"merasurebench", "redteam"}
"""Experiments of ours, on the embedded model; all others remake a table of a paper."""

NAMES = [name for name in groups()["experiment"] if name not in OWN]
TABLES = {
    "cure": "artists artists_living i2p objects efficiency alpha number redteam_unlearndiffatk redteam_ringabell redteam_mma redteam_p4d",
    "uce": "objects artists nudity",
    "rece": "nudity artists artists_living objects unsafe redteam",
    "esd": "objects artists nudity",
    "mace": "objects celebrities_1 celebrities_5 celebrities_10 celebrities_100 artists_100 explicit coco_explicit",
    "speed": "few_1 few_2 few_3 few_artists celebrities_10 celebrities_50 celebrities_100 nudity coco_1 coco_2 coco_3 coco_nudity coco_artists",
    "spm": "instances_1 instances_2 instances_3 artists nudity",
    "ant": "explicit celebrities_100 artists_100",
    "trce": "sexual unsafe",
    "hub": "celebrities styles characters nsfw",
    "safree": "artists redteam",
    "sld": "i2p",
    "unlearndiffatk": "nudity",
    "unlearncanvas": "style object",
    "eraseeval": "objects artists coco",
    "ace": "editing",
}


@cache
def embedded():
    return load_model("embedded", name="embedded", device="cpu")


@cache
def config_of(*overrides: str):
    return compose(overrides)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=220)


def said(console: Console) -> str:
    return " ".join(console.file.getvalue().split())


def test_the_tables_of_the_papers_are_there() -> None:
    asked = {f"{paper}_{table}" for paper, tables in TABLES.items() for table in tables.split()}
    assert asked == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_composes_with_its_own_choices(name: str) -> None:
    config = config_of(f"experiment={name}")
    about = config.experiment
    assert about.name == name and about.paper and about.table and about.note is not None
    assert config.model.name == (
        {"unlearncanvas": "unlearncanvas", "hub": "sd15"}.get(name.partition("_")[0], "sd14")
    ) and config.protocol.name not in ("embedded", "flow")
    assert set(config.metric), "what it measures is said"
    if config.prompts.get("source") is None:
        with pytest.raises(UserError, match="give the path of a file that is not part of erasebench: .{20}"):
            task_groups(config)
            prepare(config)


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_plans_at_a_tiny_scale(name: str, tmp_path: Path) -> None:
    config = config_of(f"experiment={name}", "scale=tiny", f"store.dir={tmp_path}", "device=cpu")
    full = config_of(f"experiment={name}")
    assert (config.model.name, config.protocol.name, config.scale) == ("embedded", "embedded", "tiny")
    assert set(config.method) == set(full.method) and config.experiment == full.experiment
    prepared = prepare(config)
    ((kind, (group, _)),) = prepared.groups.items()
    assert kind == config.experiment.kind
    plan = make_plan(prepared, embedded())
    near = {other for task in group.tasks for name in task.names for other in group.near.get(name, ())}
    assert set(plan.rows.label[plan.rows.role == "near"]) == near
    assert set(plan.rows.role) - {"near"} == {"erase", "paraphrase", "retain", "general"}
    assert 0 < len(plan.recipes) < 250 and len(plan.recipes) == images_without_a_model(prepared)
    assert len({label for label, *_ in prepared.edits()}) >= 2


MADE_HERE = {
    4000: "speed_few_1 speed_few_2 speed_few_3",  # 80 templates, 10 images, 5 concepts
    4800: "spm_instances_1 spm_instances_2 spm_instances_3",  # the same of 6 concepts
    5100: "unlearncanvas_style unlearncanvas_object",  # 51 themes, 20 objects, 5 seeds
    2600: "mace_objects",  # 200 images of ten classes, and of three synonyms of the erased one
    30: "eraseeval_objects eraseeval_artists",  # five images of five names, and of one description
}
"""How many images of one edit a paper drew, where its prompts are made here; of files: tests/test_paper_files.py."""


@pytest.mark.parametrize(
    ("name", "images"), [(name, images) for images, names in MADE_HERE.items() for name in names.split()]
)
def test_where_prompts_are_made_here_as_many_images_are_drawn_as_in_the_paper(name, images, tmp_path: Path) -> None:
    prepared = prepare(config_of(f"experiment={name}", "lists.instances=task", f"store.dir={tmp_path}", "device=cpu"))
    ((group, prompts),) = prepared.groups.values()
    assert {len(drawn(prompts.for_task(task), prepared.protocol)) for task in group.tasks} == {images}


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory) -> Path:
    """One results folder for all: an image that several experiments ask for is made once."""
    return tmp_path_factory.mktemp("experiments")


ONE_A_PAPER = {f"{paper}_{tables.split()[0]}" for paper, tables in TABLES.items()}
"""What every change is tried on whole; the rest of them with ``pytest -m long``."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ONE_A_PAPER else pytest.mark.long) for name in NAMES]
)
def test_every_experiment_runs_at_a_tiny_scale(name: str, shared_store: Path) -> None:
    few = ("prompts.per_erased=1", "prompts.general=1", "protocol.steps=2")
    console = quiet()
    done = run(compose([f"experiment={name}", "scale=tiny", *few, f"store.dir={shared_store}", "device=cpu"]), console)
    assert not done.problems
    measured = done.measured[done.measured.metric.str.startswith("judge@")]
    assert len(measured) and measured.value.notna().all(), "the judge has a number for every eraser and role"
    assert "Numbers of the embedded model" in said(console)


def test_a_tiny_experiment_runs_whole_and_its_numbers_are_the_embedded_models(tmp_path: Path) -> None:
    overrides = ("experiment=cure_objects", "scale=tiny", "method=cure", f"store.dir={tmp_path}", "device=cpu")
    sizes = {"per_erased": 1, "per_paraphrased": 0, "per_near": 0, "per_retained": 0, "general": 2}
    few = (*(f"prompts.{key}={size}" for key, size in sizes.items()), "protocol.steps=2")
    before = quiet()
    assert run(compose([*overrides, *few, "dry_run=true"]), before) is None
    assert "6 images to make; time for them here: unknown until the first images are made" in said(before)
    console = quiet()
    done = run(compose([*overrides, *few]), console)
    assert "Numbers of the embedded model" in said(console)
    table = pd.read_csv(done.folder / "tables" / "published.csv")
    assert len(table) == 6 and table.published.notna().all()
    assert table.measured.isna().all() and table.difference.isna().all(), "no embedded number beside a published one"
    text = (done.folder / "tables" / "published.md").read_text(encoding="utf-8")
    assert "not run" in text and r"4.2\~" in text and "not of Stable Diffusion" in text
    again = quiet()
    assert run(compose([*overrides, *few, "prompts.general=3", "dry_run=true"]), again) is None
    assert re.search(r"2 images to make; time for them here: [0-9.]+ minutes; disk: [0-9.]+ MB", said(again))
    before = (done.folder / "tables" / "published.csv").read_bytes()
    tabulate([done.folder.name], str(tmp_path), console=quiet())
    assert (done.folder / "tables" / "published.csv").read_bytes() == before, "made again from records"


def test_several_settings_of_one_eraser_are_rows_of_one_table(tmp_path: Path) -> None:
    prepared = prepare(config_of("experiment=cure_alpha", "scale=tiny", f"store.dir={tmp_path}", "device=cpu"))
    assert list(prepared.erasers) == ["none", *(f"cure our choice alpha={alpha}.0" for alpha in (1, 2, 3, 5, 10))]


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("cure_objects", ["judge"]),
        ("mace_objects", ["judge", "clip_zero_shot_embedded_probability"]),
        ("speed_few_1", ["judge", "clip_score_embedded", "fid_embedded"]),
        ("cure_artists", ["judge", "judge_distance"]),
        ("mace_explicit", ["judge"]),
        ("mace_coco_explicit", ["judge", "clip_score_embedded"]),
        ("spm_instances_1", ["judge", "clip_score_embedded", "clip_error_embedded", "fid_embedded"]),
        ("unlearncanvas_style", ["judge"]),
    ],
)
def test_a_tiny_experiment_measures_what_the_full_one_does(name: str, metrics: list[str]) -> None:
    assert list(config_of(f"experiment={name}", "scale=tiny").metric) == metrics


JUDGED = ("classifier", "nudenet", "unlearncanvas", "q16", "seen")
"""How the names of metrics begin in whose place the embedded model's judge stands."""

WITHOUT_EQUIVALENT = {"aesthetic", "pickscore"}
"""What people like: nothing in the embedded world measures that."""


@pytest.mark.parametrize("name", sorted(set(NAMES) - OWN))
def test_each_metric_has_one_of_its_shape_at_a_tiny_scale(name: str) -> None:
    tiny = list(config_of(f"experiment={name}", "scale=tiny").metric)
    for metric in set(config_of(f"experiment={name}").metric) - WITHOUT_EQUIVALENT:
        shape = "judge" if metric.startswith(JUDGED) else metric.split("_")[0]
        assert any(other.startswith({"lpips": "judge_distance"}.get(shape, shape)) for other in tiny), (metric, tiny)


def test_the_whole_way_to_a_difference_is_walked_at_a_tiny_scale(tmp_path: Path, monkeypatch) -> None:
    smaller = (*TINY[""], "protocol.steps=2", "prompts.per_erased=1", "prompts.general=1")
    monkeypatch.setitem(TINY, "", smaller)
    published_match._asked.cache_clear()
    files = {
        "published_tables.csv": "id,paper,arxiv,table,source\nx-1,CURE,,Table 4,made up for a test\n",
        "published_metrics.csv": (
            "paper,metric,task,ours,version,role,scale,protocol,why\n"
            "CURE,acc,,judge,,,100,embedded,\nCURE,other,,judge,,retain,1,cure,\n"
        ),
        "published_methods.csv": "method,paper,ours\nUCE,,uce\nSD,,none\n",
        "published.csv": (
            "table_id,task,model,method,metric,direction,split,erased,asked,value,obtained,doubt,copy_of\n"
            "x-1,objects,embedded,UCE,acc,down,church,church,church,12,authors,,\n"
            "x-1,objects,embedded,SD,acc,up,tench,,tench,50,quoted,,\n"
            "x-1,objects,embedded,UCE,other,up,others,church,,0.5,authors,,\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    few = ("scale=tiny", "method=[released/uce]", f"store.dir={tmp_path}/r", "device=cpu")
    done = run(compose(["experiment=cure_objects", *few]), quiet())
    ran, store = Ran.from_folder(done.folder), Store(tmp_path / "r")
    metrics, not_run = metrics_of(done.folder)
    scores = {metric.records_id: store.scores(metric.records_id, metric.inputs) for metric in metrics}
    asked = measure_asked(read_plan(done.folder), scores, metrics, not_run)
    church, tench, others = beside(done.measured, ran, asked, load_published(tmp_path))[:3].to_dict("records")
    erased = done.measured[(done.measured.role == "erase") & done.measured.eraser.str.startswith("uce")].value.iloc[0]
    assert church["difference"] == pytest.approx(100 * erased - 12) and church["note"] == ""
    assert church["n"] == 1 and church["method"] == "UCE"
    assert tench["difference"] == pytest.approx(tench["measured"] - 50) and tench["note"] == ""
    assert others["measured"] >= 0 and pd.isna(others["difference"]) and others["note"] == "protocol embedded, not cure"
    published_match._asked.cache_clear()


def test_experiments_that_share_their_images_share_no_table(tmp_path: Path) -> None:
    few = ("scale=tiny", "method=noop", "prompts.per_erased=1", "prompts.per_retained=1", "prompts.general=1")
    names = ("unlearndiffatk_nudity", "mace_explicit", "cure_i2p", "rece_nudity")
    runs = [prepare(config_of(f"experiment={name}", *few, f"store.dir={tmp_path}", "device=cpu")) for name in names]
    assert len({run.run_name for run in runs}) == len(names)


def test_what_is_given_beside_the_scale_wins() -> None:
    spelt = at_scale(["experiment=mace_celebrities_10", "scale=tiny", "prompts.per_erased=7"])
    assert "prompts.per_erased=7" in spelt and "prompts.per_erased=2" not in spelt
    assert "task.joint=true" in spelt and "model=embedded" in spelt
    assert at_scale(["experiment=cure_objects"]) == ["experiment=cure_objects"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["scale=tiny"], "needs one experiment beside it"),
        (["scale=small", "experiment=cure_objects"], "no such scale.* Known: full, tiny"),
        (["scale=tiny", "experiment=cure_objects", "model=sd14"], "on the embedded model; leave model=sd14"),
        (["scale=tiny", "experiment=cure_objekts"], "Did you mean 'cure_objects'"),
        (["experiment=cure_table"], "experiment=cure_table: there is no such experiment"),
    ],
)
def test_a_scale_or_experiment_that_cannot_be_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose(overrides)


def test_options_of_hydra_and_their_values_are_no_overrides() -> None:
    arguments = ["--cfg", "job", "experiment=cure_objects", "-m", "scale=tiny", "-p", "task"]
    assert overrides_in(arguments) == ["experiment=cure_objects", "scale=tiny"]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_concepts_of_a_file_are_its_labels_and_those_it_erases(tmp_path: Path) -> None:
    rows = [
        {"type": kind, "prompt": f"A portrait of {name}", "evaluation_seed": seed}
        for kind, name in (("erased", "Adam Driver"), ("erased", "Amy Adams"), ("others", "Aaron Paul"))
        for seed in (1, 2)
    ]
    path = write(tmp_path / "celebrity_2_concepts.csv", rows)
    config = compose(["experiment=mace_celebrities_10", f"prompts.source={path}"])
    (group,) = task_groups(config).values()
    (task,) = group.tasks
    assert task.names == ("Adam Driver", "Amy Adams") and task.retain == ("Aaron Paul",)
    none = write(tmp_path / "none.csv", [row | {"type": "others"} for row in rows])
    with pytest.raises(UserError, match="marks no named concept as erased"):
        task_groups(compose(["experiment=mace_celebrities_10", f"prompts.source={none}"]))
    with pytest.raises(UserError, match="needs a prompt file"):
        task_groups(compose(["task=celebrity_file"]))


BY_FILE = [name for name in NAMES if config_of(f"experiment={name}").task.concepts == "prompts"]


def artists(path: Path, **counts: int) -> Path:
    """A prompt file as UCE has them: so many artists of each type, and one prompt for each."""
    rows = [
        {"case_number": f"{kind}{i}", "prompt": f"Art by {kind} {i}", "evaluation_seed": i, "artist": f"{kind} {i}"}
        | {"type": kind}
        for kind, count in counts.items()
        for i in range(count)
    ]
    return write(path, rows)


@pytest.mark.parametrize("name", BY_FILE)
def test_no_eraser_is_told_of_what_a_file_holds_out(name: str, tmp_path: Path) -> None:
    path = artists(tmp_path / "artists.csv", erased=2, preserved=3, holdout=4)
    lists = [f"lists.{key}=task" for key in ("artists", "instances")]
    overrides = [f"experiment={name}", f"prompts.source={path}", "prompts.schema=artists_roles", *lists]
    if "mace__released" in config_of(f"experiment={name}").method:
        captions = tmp_path / "captions.txt"
        captions.write_text("a street\n", encoding="utf-8")
        overrides.append(f"lists.captions={captions}")
    prepared = prepare(compose([*overrides, "method=[closed_form,released/cure]", f"store.dir={tmp_path}"]))
    ((group, prompts),) = prepared.groups.values()
    assert prompts.held_out == tuple(f"holdout {i}" for i in range(4))
    assert {concept.name for concept in group.concepts} >= set(prompts.held_out), "they are measured"
    told = {text for _, _, _, task in prepared.edits() for text in task.retain}
    assert told == {f"preserved {i}" for i in range(3)}
    asked = set(prompts.for_task(group.tasks[0]).label)
    assert set(prompts.held_out) <= asked


def test_what_is_held_out_cannot_be_erased(tmp_path: Path) -> None:
    path = artists(tmp_path / "artists.csv", erased=2, holdout=1)
    with pytest.raises(UserError, match="'holdout 0' is to be erased, and the prompt file holds it out"):
        prepare(
            compose(["task=artist_file", "task.erase=[holdout 0]", "prompts=uce_artists", f"prompts.source={path}"])
        )


def test_a_number_of_artists_beyond_the_prompts_needs_the_list_of_all(tmp_path: Path) -> None:
    few = artists(tmp_path / "erased-3artists-towards_art.csv", erased=2, preserved=1, holdout=1)
    asked = ["experiment=uce_artists", f"prompts.source={few}", "lists.artists=task", f"store.dir={tmp_path}"]
    needed = r"3 artists are erased.*prompts for 2 of them.*80bb915:data/info/erased-3artists-towards_art-preserve_true"
    with pytest.raises(UserError, match=needed):
        task_groups(compose(asked))
    names = tmp_path / "erased-3artists.txt"
    names.write_text('["erased 0", "Erased 1", "Mary Cassatt"]', encoding="utf-8")
    (group,) = task_groups(compose([*asked, f"task.erase={names}"])).values()
    (task,) = group.tasks
    assert task.names == ("erased 0", "erased 1", "Mary Cassatt") and "preserved 0" in task.retain


def test_a_model_that_is_not_here_is_counted_without_it(tmp_path: Path, monkeypatch) -> None:
    rows = [
        {"case_number": 2 * i + j, "prompt": f"an image of a {name}", "class": name, "evaluation_seed": j}
        for i, name in enumerate(config_of("experiment=cure_objects").task.concepts)
        for j in range(2)
    ]
    path = write(tmp_path / "imagenette.csv", rows)
    monkeypatch.setattr("erasebench.run.model_here", lambda *_: False)
    console = quiet()
    config = compose(["experiment=cure_objects", f"prompts.source={path}", "dry_run=true", f"store.dir={tmp_path}/r"])
    assert run(config, console) is None
    # 20 prompts; unedited once, and for each of ten classes with UCE, RECE and three choices of CURE.
    assert f"about {20 + 5 * 10 * 20} images; sd14 is not on this machine" in said(console)


def test_an_estimate_is_whole_or_unknown(tmp_path: Path) -> None:
    from PIL import Image

    def recipe(seed: int, steps: int = 2) -> Recipe:
        return Recipe("m", "r", "", "p", "", seed, steps, 7.5, 64, 64, "DDIMScheduler", "{}", "float32")

    store, here = Store(tmp_path), device_name(embedded().pipe)
    assert estimate(store, [], here) == Cost(0, 0.0, 0.0)
    assert estimate(store, [recipe(1)], here).seconds is None
    for seed, seconds in enumerate((1.0, 2.0, 30.0)):
        store.put_image(recipe(seed), Image.new("RGB", (64, 64)), {"seconds": seconds, "device": here})
    found = estimate(store, [recipe(seed) for seed in range(10, 20)], here)
    assert found.seconds == 20.0, "the median: one slow image does not count ten times"
    assert found.disk_bytes == pytest.approx(10 * store.image_path(recipe(0).key).stat().st_size, rel=0.02)
    assert estimate(store, [recipe(10), recipe(11, steps=50)], here).seconds is None, "half an estimate misleads"
    elsewhere = estimate(store, [recipe(10)], "cuda NVIDIA A100")
    assert elsewhere.seconds is None and elsewhere.disk_bytes
    assert "20.0 hours" in str(Cost(5, 72000.0, 1e9))


def test_the_red_team_has_its_controls_and_attacks(tmp_path: Path) -> None:
    prepared = prepare(config_of("experiment=redteam", f"store.dir={tmp_path}", "device=cpu"))
    attacks = {attack.name for attack in prepared.attacks.values()}
    assert {"seeds", "random_prefix"} < attacks and len(attacks) == 6, "controls, and four attacks"
    assert "shuffled" in prepared.erasers and len(prepared.erasers) == 9
    assert "retrained" not in prepared.erasers and set(prepared.left_out) == {
        ("retrained", kind) for kind in prepared.groups
    }
    assert "erasebench tiny retrain --without church --out" in prepared.left_out["retrained", "object"]
    plan = make_plan(prepared, embedded())
    for attack, rows in plan.rows.groupby("attack"):
        assert (rows.groupby(["eraser", "task_kind"]).size() >= 20).all(), attack


def test_merasurebench_has_its_five_scenarios(tmp_path: Path) -> None:
    """Text is the rows without an attack; embeddings and latents are found once for all edits, or on each with its weights."""
    prepared = prepare(config_of("experiment=merasurebench", f"store.dir={tmp_path}", "device=cpu"))
    attacks = {attack.name: attack for attack in prepared.attacks.values()}
    assert {name: attack.adaptive for name, attack in attacks.items()} == {
        "cce": True, "cce_transfer": False, "ddim_inversion": True, "ddim_inversion_transfer": False,
    }  # fmt: skip
    assert attacks["cce"].settings == attacks["cce_transfer"].settings, "the same budget in both boxes"
    assert attacks["ddim_inversion"].settings == attacks["ddim_inversion_transfer"].settings
    assert attacks["ddim_inversion"].unconditional
