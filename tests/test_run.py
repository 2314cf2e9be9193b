"""The main job through the public command: done once, done again, killed, and given bad input.

A small random pipeline stands in for a model here, so that these tests judge the walk and not the weights; what the
embedded model itself does is in test_embedded.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch

from erasebench.config.choices import model_name
from erasebench.config.compose import compose
from erasebench.edits.eraser import Change, Eraser
from erasebench.errors import UserError
from erasebench.images import generate as generate_module
from erasebench.run import Finished, run
from erasebench.runs.manifest import read_starts
from erasebench.runs.state import check_finished, last_error
from erasebench.scores.scoring import chunks_to_score
from erasebench.store import Store
from erasebench.tables.tabulate import reduce_and_write

SMALL = [
    "model=folder", "model.name=small", "protocol=embedded", "protocol.steps=2", "task=object", "metric=[judge,nudenet]",
    "task.erase=[church,garbage truck,gas pump]", "task.concepts=[church,garbage truck,gas pump,castle,bus,tench]",
    "prompts.per_erased=2", "prompts.per_paraphrased=1", "prompts.per_near=1", "prompts.per_retained=1",
    "prompts.general=2", "device=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def model_folder(small_pipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    small_pipe().save_pretrained(folder)
    return folder


def overrides(model_folder: Path, store: Path, *more: str) -> list[str]:
    return [*SMALL, f"model.path={model_folder}", f"store.dir={store}", *more]


def pixels(store: Path) -> dict[str, str]:
    records = Store(store).image_records()
    return dict(zip(records.key, records.pixels_sha256, strict=True))


@pytest.fixture(scope="module")
def finished(model_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    store = tmp_path_factory.mktemp("results")
    return store, run(compose(overrides(model_folder, store)))


def test_one_run_leaves_all_it_promises(finished) -> None:
    store, done = finished
    for name in (
        "config.yaml",
        "plan.parquet",
        "manifest.json",
        "tables/object.md",
        "tables/object.tex",
        "grids/object.png",
    ):
        assert (done.folder / name).stat().st_size > 0
    check_finished(done.folder, Store(store))
    plan = pd.read_parquet(done.folder / "plan.parquet")
    assert set(plan.eraser) == {"none", "cure", "uce", "rece"}
    assert set(plan.task) == {"church", "garbage truck", "gas pump"}
    roles = plan[plan.task == "church"].groupby("role").label.unique()
    assert set(roles.index) == {"erase", "paraphrase", "near", "retain", "general"}
    assert set(roles["near"]) == {"castle"} and set(roles["retain"]) == {"garbage truck", "gas pump", "bus", "tench"}
    assert (plan.key[plan.eraser == "none"] == plan.original_key[plan.eraser == "none"]).all()
    assert not (plan.key[plan.eraser != "none"] == plan.original_key[plan.eraser != "none"]).any()
    assert len(Store(store).image_records()) == plan.key.nunique()


def test_the_unedited_images_are_shared_by_all_erasers(finished) -> None:
    plan = pd.read_parquet(finished[1].folder / "plan.parquet")
    assert plan.groupby(["task", "prompt_id"]).original_key.nunique().max() == 1
    assert plan.original_key.nunique() < len(plan[plan.eraser == "none"]), "tasks share them, too"


def test_the_same_command_again_makes_nothing_and_says_the_same(finished, model_folder: Path) -> None:
    store, done = finished
    before = {path: path.stat().st_mtime_ns for path in store.glob("images/*/*.png")}
    again = run(compose(overrides(model_folder, store)))
    assert {path: path.stat().st_mtime_ns for path in store.glob("images/*/*.png")} == before
    pd.testing.assert_frame_equal(again.measured, done.measured)
    first, second = read_starts(done.folder)[:2]
    assert first["started"] <= second["started"] and first["device"] and first["packages"], "both starts are kept"


def test_a_finished_run_is_tabulated_again_only_where_something_changed(
    model_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    import erasebench.run as walk

    reduced: list[Path] = []

    def reduce(folder: Path, *rest, **more) -> pd.DataFrame:
        reduced.append(folder)
        return reduce_and_write(folder, *rest, **more)

    monkeypatch.setattr(walk, "reduce_and_write", reduce)
    few = ["method=noop", "task.erase=[church]", "metric=[judge]", "prompts.general=0"]

    def again(*more: str) -> tuple[Finished, bool]:
        before = len(reduced)
        done = run(compose(overrides(model_folder, tmp_path, *few, *more)))
        return done, len(reduced) > before

    first, worked_out = again()
    assert worked_out
    tables = {path.name: path.read_bytes() for path in (first.folder / "tables").iterdir()}
    (first.folder / "tables" / "object.md").unlink()
    second, worked_out = again()
    assert not worked_out, "all of it is there"
    pd.testing.assert_frame_equal(second.measured, first.measured)
    assert {path.name: path.read_bytes() for path in (first.folder / "tables").iterdir()} == tables

    grid, store = first.folder / "grids" / "object.png", Store(tmp_path)
    grid.unlink()
    assert again()[1] and grid.is_file(), "a picture that is gone is drawn again"
    key = pd.read_parquet(first.folder / "plan.parquet").key.iloc[0]
    store.image_path(key).unlink()
    assert again()[1] and store.image_path(key).is_file(), "an image that is gone is made, and drawn, again"
    assert not again()[1]
    assert again("protocol.steps=3")[1], "another config is another run"
    records = next((tmp_path / "records").glob("judge*"))
    shards = list(records.glob("*.parquet"))
    scores = pd.concat(map(pd.read_parquet, shards))
    for path in shards:
        path.unlink()
    Store(tmp_path).put_scores(records.name, scores.assign(object="church"))
    third, worked_out = again()
    assert worked_out and not third.measured.equals(first.measured), "other scores are other numbers"


def test_a_dry_run_makes_nothing(model_folder: Path, tmp_path: Path) -> None:
    assert run(compose(overrides(model_folder, tmp_path, "dry_run=true"))) is None
    assert not list(tmp_path.glob("images/*")) and not list(tmp_path.glob("runs/*"))


def test_kill_9_anywhere_and_the_same_command_ends_as_if_undisturbed(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Images of batches of another size may be rounded another way, so the undisturbed run makes them one by one, too.
    alone, few = tmp_path / "alone", ["batch_size=1", "method=uce", "task.erase=[church]"]
    undisturbed = run(compose(overrides(model_folder, alone, *few)))
    tmp_path = tmp_path / "killed"
    command = [sys.executable, "-m", "erasebench", "run", *overrides(model_folder, tmp_path, *few)]
    for images_before_kill in (3, 14):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while len(list(tmp_path.glob("images/*/*.png"))) < images_before_kill and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(UserError, match="is not finished: missing are .* images"):
        check_finished(next(tmp_path.glob("runs/*")), Store(tmp_path))
    # What a crash of the machine can leave: images whose records were not written yet are cut.
    for shard in tmp_path.glob("records/images/*"):
        shard.unlink()
    cut = sorted(tmp_path.glob("images/*/*.png"))[:2]
    for path, keep in zip(cut, (100, 0), strict=True):
        path.write_bytes(path.read_bytes()[:keep])
    whole = {path.stem: path.read_bytes() for path in tmp_path.glob("images/*/*.png") if path not in cut}
    assert len(whole) >= 12
    sampled: list[str] = []

    def counted(pipe, texts, batch, *rest):
        sampled.extend(recipe.key for recipe in batch)
        return sample(pipe, texts, batch, *rest)

    sample = generate_module._sample
    monkeypatch.setattr(generate_module, "_sample", counted)
    done = run(compose(overrides(model_folder, tmp_path, *few)))
    expected = pixels(alone)
    assert sorted(sampled) == sorted(expected.keys() - whole.keys()), (
        "what was whole is not sampled again, the rest once"
    )
    assert all(Store(tmp_path).image_path(key).read_bytes() == data for key, data in whole.items())
    assert pixels(tmp_path) == expected
    measured = [made.measured[made.measured.role != "cost"].reset_index(drop=True) for made in (done, undisturbed)]
    pd.testing.assert_frame_equal(*measured)


def test_other_weights_do_not_go_by_the_name_of_known_ones() -> None:
    known = compose(["model=sd14"]).model
    assert model_name(known) == "sd14"
    known.path = "my/fine-tune"
    assert model_name(known) == "fine-tune (as sd14)"
    assert model_name(compose(["model=folder", "model.path=x", "model.name=mine"]).model) == "mine"
    assert model_name(compose(["model=folder", "model.path=x"]).model) == "folder"


def test_a_name_is_not_given_to_two_configs(model_folder: Path, tmp_path: Path) -> None:
    few = ["name=mine", "method=none", "task.erase=[church]", "metric=[]", "prompts.per_retained=0"]
    run(compose(overrides(model_folder, tmp_path, *few)))
    run(compose(overrides(model_folder, tmp_path, *few, "batch_size=3")))
    with pytest.raises(UserError, match="measured something else"):
        run(compose(overrides(model_folder, tmp_path, *few, "protocol.steps=3")))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("protocol.steps=0", "protocol.steps=0: must be 1 or more"),
        ("batch_size=-1", "batch_size=-1: must be 1 or more, or auto"),
        ("protocol.guidance=-1", "guidance"),
        ("protocol.size=13", "multiple of 8"),
        ("protocol.scheduler=DDIMSheduler", "DDIMScheduler"),
        ("model.path=/nowhere", "no such folder"),
        ("device=tpu", "unknown device"),
        ("dtype=float8", "unknown dtype"),
        ("name=../up", "a run's name"),
    ],
)
def test_bad_values_are_refused_before_any_work(
    override: str, message: str, model_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        run(compose(overrides(model_folder, tmp_path, override)))
    assert not list(tmp_path.glob("images/*")) and not list(tmp_path.glob("edits/*"))


def test_a_results_folder_that_cannot_be_written_is_refused(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write to"):
        run(compose(overrides(model_folder, tmp_path / "file" / "results")))


@dataclass(frozen=True)
class Broken(Eraser):
    """An eraser whose weights are not finite, for the test below."""

    name = "broken"
    version = "1"
    describe = "gives NaN"

    def changes(self, pipe, task):
        name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
        weight = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight
        return {name: Change(delta=torch.full_like(weight, float("nan")))}, {}


def test_an_edit_that_is_not_finite_stops_the_run_and_is_not_saved(model_folder: Path, tmp_path: Path) -> None:
    config = compose(
        overrides(model_folder, tmp_path, "method=noop", f"method._target_={__name__}.Broken", f"plugins=[{__name__}]")
    )
    with pytest.raises(UserError, match=r"mid_block.*to_k"):
        run(config)
    assert not list(tmp_path.glob("edits/*"))
    assert "to_k" in last_error(next(tmp_path.glob("runs/*"))), "what stopped it is noted"


def test_noop_changes_no_pixel_and_random_does(model_folder: Path, tmp_path: Path) -> None:
    few = ["task.erase=[church]", "metric=[]", "prompts.per_retained=0", "prompts.general=0"]
    images = {}
    for method in ("noop", "random"):
        done = run(compose(overrides(model_folder, tmp_path, *few, f"method={method}")))
        plan = pd.read_parquet(done.folder / "plan.parquet")
        edited = plan[plan.eraser != "none"]
        made = pixels(tmp_path)
        images[method] = [made[row.key] == made[row.original_key] for row in edited.itertuples()]
    assert all(images["noop"]) and not any(images["random"])


def test_the_examples_of_contributing_work_as_printed(model_folder: Path, tmp_path: Path) -> None:
    text = Path(__file__).parents[1].joinpath("CONTRIBUTING.md").read_text(encoding="utf-8")
    python = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    names, groups = ("shrink", "insist", "brightness"), ("method", "attack", "metric")
    yaml = [block.split("```")[0] for block in text.split("```yaml\n")[1:]]
    yaml = [block for block in yaml if any(f"_target_: {name}." in block for name in names)]
    for name, code, group, config in zip(names, python, groups, yaml, strict=True):
        assert len(code.splitlines()) <= 36 and f"# {name}.py" in code
        (tmp_path / f"{name}.py").write_text(code)
        folder = tmp_path / "my_conf" / group
        folder.mkdir(parents=True)
        (folder / f"{name}.yaml").write_text(config)
    command = [
        sys.executable, "-m", "erasebench", "run", "--config-dir", str(tmp_path / "my_conf"),
        *overrides(model_folder, tmp_path / "results", "method=shrink.py", "attack=insist", "metric=[brightness]"),
        "task.erase=[church]", "plugins=[insist.py,brightness.py]",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "shrink + insist" in done.stdout and "brightness" in done.stdout
    files = list((tmp_path / "results").glob("attacks/*/*.safetensors"))
    assert files
    for path in files:
        result = Store(tmp_path / "results").get_attack(path.stem)
        assert result.prompt == f"{result.info['for']['prompt']}, church, church, church"


def test_a_sweep_ends_in_one_table_and_a_plot(model_folder: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "erasebench", "run", "-m",
        *overrides(model_folder, tmp_path, "method=cure", "method.alpha=1,5", "task.erase=[church]", "metric=[judge,nudenet]"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cure alpha=1" in done.stdout and "cure alpha=5" in done.stdout
    (table,) = tmp_path.glob("tables/*/object.md")
    assert "cure alpha=5" in table.read_text()
    assert list(tmp_path.glob("tables/*/object-alpha.png"))


def test_an_image_that_is_lost_beside_a_run_is_made_again(model_folder: Path, tmp_path: Path, monkeypatch) -> None:
    import erasebench.run as walk

    few = ["method=noop", "task.erase=[church]", "metric=[judge]", "prompts.general=0"]
    lost = []

    def chunks(rows, metrics, store):
        if metrics and not lost:
            first, second = (store.image_path(key) for key in rows.key.unique()[:2])
            first.unlink()
            second.write_bytes(second.read_bytes()[:100])
            lost.extend([first, second])
        return chunks_to_score(rows, metrics, store)

    monkeypatch.setattr(walk, "chunks_to_score", chunks)
    done = run(compose(overrides(model_folder, tmp_path, *few)))
    assert not done.problems and len(lost) == 2
    plan = pd.read_parquet(done.folder / "plan.parquet")
    store = Store(tmp_path)
    assert all(store.image(key) for key in plan.key.unique())


FAILING = """
from erasebench.metrics.judge import Judge

class Failing(Judge):
    def __init__(self):
        super().__init__()
        self.name, self.version = "failing", "1"

    def score(self, images, rows, originals=None):
        raise RuntimeError("the net is broken")
"""


def test_a_metric_that_fails_is_named_the_others_are_tabulated_and_the_status_is_1(
    model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "failing_metric.py").write_text(FAILING)
    few = ["method=noop", "task.erase=[church]", "prompts.general=0"]
    bad = ["metric=[judge]", "plugins=[failing_metric]", "+metric.failing={_target_: failing_metric.Failing}"]
    command = [sys.executable, "-m", "erasebench", "run", *overrides(model_folder, tmp_path / "r", *few, *bad)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1 and "Traceback" not in text, text
    assert "metric failing@1 failed: RuntimeError: the net is broken (failing_metric.py:10)" in text
    measured = pd.read_csv(next((tmp_path / "r").glob("runs/*/tables/measured.csv")))
    assert measured[measured.metric == "failing@1"].value.isna().all()
    assert "the net is broken" in measured[measured.metric == "failing@1"].reason.iloc[0]
    assert measured[measured.metric.str.startswith("judge") & (measured.role == "erase")].value.notna().all()


def test_a_run_that_can_measure_nothing_makes_no_images(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of its metrics can run here, so that \d+ images would .*metric=\[\]"):
        run(compose(overrides(model_folder, tmp_path, "task.erase=[church]", "metric=[nudenet]")))
    assert not list(tmp_path.glob("images/*/*.png")) and not list(tmp_path.glob("runs/*"))
