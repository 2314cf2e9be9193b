"""Several processes and one run: each thing is made once, by one of them, whatever is killed; each ends the same."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from erasebench.cli import main
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.recipe import Recipe
from erasebench.run import run
from erasebench.runs import jobs as jobs_module
from erasebench.runs.jobs import EDIT, IMAGES, IMAGES_A_JOB, Job, Tally, jobs, share_out
from erasebench.runs.plan import Plan, Share
from erasebench.runs.state import check_finished, parts
from erasebench.store import Store

SMALL = [
    "task=object", "task.erase=[church]", "method=main", "metric=[judge]", "prompts.per_erased=4", "prompts.general=1",
    "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=0", "protocol.steps=1", "device=cpu",
    "batch_size=2",
]  # fmt: skip
ERASEBENCH = [sys.executable, "-m", "erasebench"]

COUNTING = """
import sys
from pathlib import Path
import erasebench.images.generate as images
import erasebench.runs.worker as worker
from erasebench.cli import main
from erasebench.metrics.judge import Judge

log, own = Path(sys.argv[1]), {}

def count(what, keys):
    with open(log, "a") as file:
        file.writelines(f"{what} {key}\\n" for key in keys)

sample, made, score = images._sample, worker.new_edit, Judge.score
def _sample(pipe, texts, batch, *rest):
    count("image", [recipe.key for recipe in batch])
    return sample(pipe, texts, batch, *rest)
def _slow_edit(eraser, task, *rest):
    count("edit", [eraser.key("", task)])
    return made(eraser, task, *rest)
def _score(self, pictures, rows, originals=None):
    count("score", rows.key)
    return score(self, pictures, rows, originals)
images._sample, worker.new_edit, Judge.score = _sample, _slow_edit, _score
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A run that nobody shared: its store and what it measured."""
    root = tmp_path_factory.mktemp("alone")
    return root, numbers(run(compose([*SMALL, f"store.dir={root}"]), quiet()).folder)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def counting(folder: Path, number: int, *more: str) -> list[tuple[subprocess.Popen, Path]]:
    """So many processes of one command, each writing down what it makes."""
    logs = [folder / f"log-{index}" for index in range(number)]
    return [
        (
            subprocess.Popen(
                [sys.executable, "-c", COUNTING, str(log), "run", *SMALL, f"store.dir={folder / 'r'}", *more],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            ),
            log,
        )
        for log in logs
    ]  # fmt: skip


def made(logs: list[Path], what: str) -> list[str]:
    lines = [line.split() for log in logs if log.exists() for line in log.read_text().splitlines()]
    return [key for kind, key in lines if kind == what]


def numbers(run: Path) -> pd.DataFrame:
    """What a run's table says but for the seconds that edits took."""
    measured = pd.read_csv(run / "tables" / "measured.csv")
    return measured[measured.role != "cost"].reset_index(drop=True)


def test_identical_commands_share_the_work_and_each_ends_with_the_tables(tmp_path: Path, alone) -> None:
    processes = counting(tmp_path, 3)
    texts = [process.communicate(timeout=500)[0] for process, _ in processes]
    assert [process.returncode for process, _ in processes] == [0] * 3, texts
    logs = [log for _, log in processes]
    plan = pd.read_parquet(next((tmp_path / "r").glob("runs/*/plan.parquet")))
    for what, distinct in (
        ("image", plan.key.nunique()),
        ("edit", plan.edit_key[plan.edit_key != ""].nunique()),
        ("score", plan[plan.role != "general"].key.nunique()),
    ):
        assert len(made(logs, what)) == len(set(made(logs, what))) == distinct, what
    for text in texts:
        assert "judge" in text and "not run" not in text
    (folder,) = (tmp_path / "r").glob("runs/*")
    pd.testing.assert_frame_equal(numbers(folder), alone[1], rtol=1e-4)
    assert not list((tmp_path / "r").glob("claims/*"))


def test_a_killed_process_is_replaced_by_the_others(tmp_path: Path, alone) -> None:
    (first, _), (second, _) = counting(tmp_path, 2)
    deadline = time.monotonic() + 240
    while len(list(tmp_path.glob("r/images/*/*.png"))) < 6 and first.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    text = second.communicate(timeout=400)[0]
    assert second.returncode == 0, text
    (folder,) = (tmp_path / "r").glob("runs/*")
    check_finished(folder, Store(tmp_path / "r"))
    plan = pd.read_parquet(folder / "plan.parquet")
    assert len(list(tmp_path.glob("r/images/*/*.png"))) == plan.key.nunique()


def test_a_rerun_that_is_killed_leaves_a_finished_run_finished(alone, capsys: pytest.CaptureFixture[str]) -> None:
    root, measured = alone
    command = [*ERASEBENCH, "run", *SMALL, f"store.dir={root}"]
    again = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    (manifest,) = root.glob("runs/*/manifest.json")
    before, deadline = manifest.stat().st_mtime_ns, time.monotonic() + 240
    while manifest.stat().st_mtime_ns == before and again.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    again.send_signal(signal.SIGKILL)
    again.communicate()
    assert main(["table", "--store", str(root)]) == 0
    assert "judge" in capsys.readouterr().out
    pd.testing.assert_frame_equal(numbers(manifest.parent), measured)


def test_parts_make_their_share_only_and_finish_makes_the_tables(
    tmp_path: Path, alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "IMAGES_A_JOB", 3)
    root, store = tmp_path / "r", Store(tmp_path / "r")
    there = 0
    for number in (1, 2, 3):
        console = quiet()
        assert run(compose([*SMALL, f"store.dir={root}", f"part={number}/3"]), console) is None
        said = " ".join(console.file.getvalue().split())
        (folder,) = root.glob("runs/*")
        assert f"part {number} of 3 is done" in said and f"erasebench finish {folder.name} --store" in said
        assert not (folder / "tables").exists()
        count = len(list(root.glob("images/*/*.png")))
        assert count > there
        there = count
        if number < 3:
            lacking = [part for part in parts(folder, store) if part.lacks]
            assert re.search(rf"missing in all parts: {lacking[0]}", said)
            assert main(["finish", folder.name, "--store", str(root)]) == 2
    assert there == pd.read_parquet(folder / "plan.parquet").key.nunique()
    assert main(["finish", folder.name, "--store", str(root)]) == 0
    pd.testing.assert_frame_equal(numbers(folder), alone[1], rtol=1e-4)
    assert not re.search(r"part=", (folder / "manifest.json").read_text()), "its command finishes all of it"


def test_records_that_are_deleted_beside_a_run_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import erasebench.run as walk

    deleted = []

    def parts_of(rows, metrics, store):
        shards = list(tmp_path.glob("records/judge@*/*.parquet"))
        if not deleted:
            for shard in shards:
                shard.unlink()
            deleted.extend(shards)
        return real(rows, metrics, store)

    real = walk.parts_of
    monkeypatch.setattr(walk, "parts_of", parts_of)
    done = run(compose([*SMALL, f"store.dir={tmp_path}"]), quiet())
    assert deleted and not done.problems
    assert done.measured[done.measured.metric.str.startswith("judge")].value.notna().all()


def test_records_that_are_gone_at_the_end_make_a_run_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import erasebench.run as walk

    def parts_of(rows, metrics, store):
        for shard in tmp_path.glob("records/judge@*/*.parquet"):
            shard.unlink()
        return real(rows, metrics, store)

    real = walk.parts_of
    monkeypatch.setattr(walk, "parts_of", parts_of)
    done = run(compose([*SMALL, f"store.dir={tmp_path}"]), quiet())
    assert any("scores of judge" in problem and "give its command again" in problem for problem in done.problems)
    with pytest.raises(UserError, match=r"is not finished: missing are .*scores of judge.*last error"):
        check_finished(done.folder, Store(tmp_path))


def test_scores_that_are_there_count_where_the_metric_cannot_run_now(alone, monkeypatch: pytest.MonkeyPatch) -> None:
    from erasebench.metrics.judge import Judge

    monkeypatch.setattr(Judge, "unavailable", lambda self: "its weights are away")
    root, measured = alone
    again = run(compose([*SMALL, f"store.dir={root}"]), quiet())
    pd.testing.assert_frame_equal(numbers(again.folder), measured)


# The jobs themselves


def plan_of(edits: dict[str, int]) -> Plan:
    def recipe(edit: str, seed: int) -> Recipe:
        return Recipe("m", "r", edit, "p", "", seed, 2, 7.5, 64, 64, "DDIMScheduler", "{}", "float32")

    recipes = [recipe(edit, seed) for edit, count in edits.items() for seed in range(count)]
    return Plan(pd.DataFrame(), {recipe.key: recipe for recipe in recipes}, {})


EDITS = {"": 130, "aa" * 16: 64, "bb" * 16: 1}


def test_jobs_hold_every_image_once_with_its_edit_before_it() -> None:
    plan = plan_of(EDITS)
    work = jobs(plan)
    keys = [key for job in work if job.kind == IMAGES for key in job.keys]
    assert sorted(keys) == sorted(plan.recipes) and max(len(job.keys) for job in work) == IMAGES_A_JOB
    assert [(job.kind, job.edit[:2], len(job.keys)) for job in work] == [
        (IMAGES, "", 64), (IMAGES, "", 64), (IMAGES, "", 2), (EDIT, "aa", 0), (IMAGES, "aa", 64), (EDIT, "bb", 0),
        (IMAGES, "bb", 1),
    ]  # fmt: skip
    assert {plan.recipes[key].edit for job in work for key in job.keys if job.kind == IMAGES} == set(EDITS)
    assert jobs(plan_of(EDITS)) == work and len({job.id for job in work}) == len(work)


def test_attacked_images_are_jobs_of_their_own_behind_those_that_searches_begin_from() -> None:
    plan = plan_of({"": 2, "aa" * 16: 65})
    attacked = [replace(recipe, attack="cc" * 16) for recipe in plan.recipes.values()]
    both = {recipe.key: recipe for pair in zip(attacked, plan.recipes.values(), strict=True) for recipe in pair}
    work = jobs(Plan(pd.DataFrame(), both, {}))
    assert [
        (job.kind, job.edit[:2], len(job.keys), {bool(both[key].attack) for key in job.keys}) for job in work
    ] == [
        (IMAGES, "", 2, {False}), (IMAGES, "", 2, {True}), (EDIT, "aa", 0, set()), (IMAGES, "aa", 64, {False}),
        (IMAGES, "aa", 1, {False}), (IMAGES, "aa", 64, {True}), (IMAGES, "aa", 1, {True}),
    ]  # fmt: skip


@pytest.mark.parametrize("of", [1, 2, 3, 16])
def test_shares_are_the_whole_and_do_not_overlap(of: int) -> None:
    plan = plan_of(EDITS)
    shares = [jobs(plan, Share(number, of)) for number in range(1, of + 1)]
    images = [job for share in shares for job in share if job.kind == IMAGES]
    assert sorted(images, key=lambda job: job.id) == sorted(
        (job for job in jobs(plan) if job.kind == IMAGES), key=lambda job: job.id
    )
    for share in shares:
        edits = [job.edit for job in share if job.kind == EDIT]
        assert {job.edit for job in share if job.kind == IMAGES} - {""} <= set(edits)
    assert {job.edit for share in shares for job in share} >= set(EDITS) - {""}, "every edit is somebody's"


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5", ""])
def test_a_part_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="part=1/16 to part=16/16"):
        Share.parse(text)
    assert Share.parse("3/16") == Share(3, 16) and Share.parse(None) == Share()


@dataclass
class Hands:
    """Does jobs by writing them down; some cannot be done at first."""

    not_yet: dict[str, int] = field(default_factory=dict)
    did: list[str] = field(default_factory=list)
    by_others: set[str] = field(default_factory=set)

    def done(self, job: Job) -> bool:
        return job.hash in self.by_others

    def work(self, job: Job) -> bool:
        if self.not_yet.get(job.hash, 0):
            self.not_yet[job.hash] -= 1
            return False
        self.did.append(job.hash)
        return True


@pytest.fixture
def work() -> Iterator[list[Job]]:
    yield [Job(IMAGES, letter * 32) for letter in "abc"]


def test_what_waits_for_another_comes_later(work: list[Job], tmp_path: Path) -> None:
    hands, said = Hands(not_yet={"a" * 32: 2}), quiet()
    share_out(work, hands, Store(tmp_path), said)
    assert hands.did == ["b" * 32, "c" * 32, "a" * 32]
    assert "waiting for 1 jobs that other processes are at work on" in said.file.getvalue()


def test_the_jobs_of_others_are_waited_for_unless_they_need_not_be(work: list[Job], tmp_path: Path) -> None:
    store, hands = Store(tmp_path), Hands()
    with Store(tmp_path).claims.claim(work[1].id):
        share_out(work, hands, store, quiet(), wait=False)
        assert hands.did == ["a" * 32, "c" * 32]

    class Others(Hands):
        def done(self, job: Job) -> bool:
            self.by_others |= {work[1].hash} if self.did else set()
            return super().done(job)

    said, others, ended = quiet(), Others(), []
    with Store(tmp_path).claims.claim(work[1].id):
        share_out(work, others, store, said, ended.append)
    assert others.did == ["a" * 32, "c" * 32] and {job.hash for job in ended} == {job.hash for job in work}


def test_a_failing_job_gives_its_claim_back(work: list[Job], tmp_path: Path) -> None:
    class Failing(Hands):
        def work(self, job: Job) -> bool:
            raise UserError("no")

    with pytest.raises(UserError):
        share_out(work, Failing(), Store(tmp_path), quiet())
    assert not list(tmp_path.glob("claims/*"))


def test_progress_counts_what_others_made_once() -> None:
    steps: list[int] = []
    first, second = Job(IMAGES, "a" * 32), Job(IMAGES, "b" * 32)
    tally = Tally(steps.append, {first: 5, second: 3})
    tally.made(2)
    tally.finished(first)
    tally.finished(second)
    assert sum(steps) == 8 and 0 not in steps
