"""Attacks through the public command: planned before they run, done once, killed, and measured beside the clean images."""

from __future__ import annotations

import hashlib
import io
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from attack_helpers import recipe
from PIL import Image
from rich.console import Console

from erasebench.concepts import Concept
from erasebench.config.compose import compose
from erasebench.edits.attack import Attack
from erasebench.edits.found import Found, Replace
from erasebench.edits.hook import Hook
from erasebench.errors import UserError
from erasebench.methods.attacks.seeds import Seeds
from erasebench.models.load import load_model
from erasebench.recipe import Recipe
from erasebench.run import run
from erasebench.runs import attacks
from erasebench.runs.attacks import Search, drawing, judging
from erasebench.store import Store

SMALL = [
    "model=folder", "model.name=small", "protocol=embedded", "protocol.steps=2", "task=object", "task.erase=[church]",
    "metric=[]", "prompts.per_erased=3", "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=1",
    "prompts.general=1", "device=cpu",
]  # fmt: skip

QUICK = [
    "attack=[ring_a_bell_quick,random_tokens]", "attack.ring_a_bell.population=6",
    "attack.ring_a_bell.generations=3", "attack.ring_a_bell.length=4",
]  # fmt: skip

ERASEBENCH = [sys.executable, "-m", "erasebench"]

LOOKS = ["+attack.looks._target_=attack_plugins.Looks", "plugins=[attack_plugins]"]


@pytest.fixture(scope="module")
def model_folder(small_pipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    small_pipe().save_pretrained(folder)
    return folder


def overrides(model_folder: Path, store: Path, *more: str) -> list[str]:
    return [*SMALL, f"model.path={model_folder}", f"store.dir={store}", *more]


def printed(config) -> tuple[str, object]:
    console = Console(file=io.StringIO(), width=200)
    return console.file.getvalue() if (done := run(config, console)) is None else console.file.getvalue(), done


def plan_of(done) -> pd.DataFrame:
    return pd.read_parquet(done.folder / "plan.parquet")


def pixels(store: Path) -> dict[str, str]:
    records = Store(store).image_records()
    return dict(zip(records.key, records.pixels_sha256, strict=True))


def found_in(store: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in store.glob("attacks/*/*.safetensors")}


@pytest.fixture(scope="module")
def finished(model_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    store = tmp_path_factory.mktemp("results")
    return store, run(compose(overrides(model_folder, store, "method=[cure,uce]", *QUICK)))


def test_every_eraser_has_rows_of_every_attack_for_erased_prompts_alone(finished) -> None:
    plan = plan_of(finished[1])
    attacks = {label for label in plan.attack if label}
    assert len(attacks) == 2
    for eraser in ("none", "cure", "uce"):
        for attack in attacks:
            rows = plan[plan.eraser == f"{eraser} + {attack}"]
            clean = plan[(plan.eraser == eraser) & (plan.role == "erase")]
            assert set(rows.role) == {"erase"} and rows.prompt_id.tolist() == clean.prompt_id.tolist()
            assert rows.clean_key.tolist() == clean.key.tolist()
            assert rows.original_key.tolist() == clean.original_key.tolist()
            assert rows.edit_key.tolist() == clean.edit_key.tolist()
            assert not set(rows.key) & set(plan.key[plan.attack == ""])
    clean = plan[plan.attack == ""]
    assert (clean.clean_key == clean.key).all() and (clean.attack_key == "").all()


def test_an_image_says_which_attack_made_it_and_asks_for_the_clean_prompt(finished) -> None:
    store, done = Store(finished[0]), finished[1]
    for row in plan_of(done).itertuples():
        recipe = store.recipe(row.key)
        assert (recipe.attack, recipe.prompt, recipe.edit) == (row.attack_key, row.prompt, row.edit_key)
        if row.attack:
            found = store.get_attack(row.attack_key)
            assert found.info["for"] == {"prompt": row.prompt} and found.info["concepts"] == ["church"]


def test_a_transfer_attack_looks_once_for_all_edits(finished) -> None:
    plan = plan_of(finished[1])
    attacked = plan[plan.attack != ""]
    assert len(found_in(finished[0])) == attacked.groupby("attack").prompt.nunique().sum() < len(attacked)


def test_the_same_command_again_finds_nothing_to_do(finished, model_folder: Path, monkeypatch) -> None:
    store, done = finished
    before, images = found_in(store), pixels(store)
    monkeypatch.setattr(Attack, "find", lambda *args, **kwargs: pytest.fail("it looked again"))
    again = run(compose(overrides(model_folder, store, "method=[cure,uce]", *QUICK)))
    assert found_in(store) == before and pixels(store) == images
    assert again.folder == done.folder
    pd.testing.assert_frame_equal(again.measured, done.measured)


def test_clean_rows_are_those_of_a_run_without_attacks(finished, model_folder: Path, tmp_path: Path) -> None:
    plan = plan_of(finished[1])
    without = run(compose(overrides(model_folder, tmp_path, "method=[cure,uce]")))
    pd.testing.assert_frame_equal(
        plan[plan.attack == ""].reset_index(drop=True), plan_of(without).reset_index(drop=True)
    )
    assert not (tmp_path / "attacks").exists()


def test_no_attack_is_the_same_run_as_before_there_were_attacks(model_folder: Path, tmp_path: Path) -> None:
    from erasebench.runs.plan import prepare

    hashes = {
        prepare(compose(overrides(model_folder, tmp_path, *more))).hash for more in ([], ["attack=none"], ["attack=[]"])
    }
    assert len(hashes) == 1
    assert prepare(compose(overrides(model_folder, tmp_path, *QUICK))).hash not in hashes


def test_a_dry_run_counts_the_searches_and_does_none(model_folder: Path, tmp_path: Path) -> None:
    text, done = printed(compose(overrides(model_folder, tmp_path, "method=cure", *QUICK, "dry_run=true")))
    assert done is None and "6 searches" in text
    assert not list(tmp_path.glob("*/*"))


def test_an_attack_that_looks_at_the_edited_model_gets_it_and_looks_for_each(
    model_folder: Path, tmp_path: Path
) -> None:
    done = run(compose(overrides(model_folder, tmp_path, "method=[cure,uce]", *LOOKS)))
    plan, store = plan_of(done), Store(tmp_path)
    attacked = plan[plan.attack == "looks"]
    assert attacked.attack_key.nunique() == len(attacked) == 9
    for row in attacked.itertuples():
        eraser = row.eraser.split(" + ")[0]
        assert store.get_attack(row.attack_key).info["edits"] == ([] if eraser == "none" else [eraser])


def test_a_search_gets_what_it_asks_for(model_folder: Path, tmp_path: Path) -> None:
    """Images of the unedited model and its networks while an edit is on the pipeline; what it draws is the edited model's."""
    uses = ["+attack.uses._target_=attack_plugins.Uses", "plugins=[attack_plugins]", "metric=judge", "batch_size=1"]
    done = run(compose(overrides(model_folder, tmp_path, "method=cure", *uses)))
    plan, store = plan_of(done), Store(tmp_path)
    records = store.image_records().set_index("key")
    attacked = plan[plan.attack == "uses"]
    assert len(attacked) == 6
    for row in attacked.itertuples():
        info, edited = store.get_attack(row.attack_key).info, row.edit_key != ""
        assert info["edits"] == (["cure"] if edited else []) and info["unedited"] == (not edited)
        assert info["drawn"] == [True, False] and len(info["judged"]) == 3
        assert info["clean"] == hashlib.sha256(store.image(row.clean_key).tobytes()).hexdigest()
        (target,) = records[(records.prompt == row.prompt) & (records.seed == row.seed + 1)].index
        assert info["target"] == hashlib.sha256(store.image(target).tobytes()).hexdigest()
        assert store.recipe(target).edit == store.recipe(target).attack == ""
    assert not list(tmp_path.glob("work/*")), "what is only tried is kept nowhere"


@dataclass(frozen=True)
class Hooked(Seeds):
    """Draws by a hook of its own, which may do more than change the seed."""

    def hook(self, found: Mapping[str, Found]) -> Hook:
        return type("Own", (Replace,), {})(found)


@pytest.mark.parametrize("attack", [Seeds(images=2), Hooked(images=2)])
def test_the_prompt_as_it_is_is_not_drawn_again(attack: Seeds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []

    def draw(model, recipes: Sequence[Recipe], *more) -> list[Image.Image]:
        drawn.append([recipe.attack for recipe in recipes])
        return [Image.new("RGB", (16, 16), "blue") for _ in recipes]

    monkeypatch.setattr(attacks, "draw_tries", draw)
    asked, store = recipe(seed=3), Store(tmp_path)
    search = Search(attack, "aa" * 16, (Concept("church", "object"),), asked, ("church",))
    tried = [Found(seed=5), Found(seed=3), Found(prompt="a castle")]

    def colours() -> list[tuple[int, ...]]:
        images = drawing(search, SimpleNamespace(), "aa" * 16, 8, store)(tried)
        return [image.getpixel((0, 0)) for image in images]

    blue, red = (0, 0, 255), (255, 0, 0)
    assert colours() == [blue] * 3 and len(drawn.pop()) == 3, "the run has no image of it yet"
    clean = replace(asked, edit="aa" * 16)
    store.put_image(clean, Image.new("RGB", (16, 16), "red"), {"seconds": 0.1, "device": "cpu", "torch": "2"})
    if isinstance(attack, Hooked):
        assert colours() == [blue] * 3
    else:
        assert colours() == [blue, red, blue] and drawn == [["try 0", "try 2"]]
        store.image_path(clean.key).write_bytes(b"")
        assert colours() == [blue] * 3, "damaged: drawn again"


def test_the_judge_is_asked_as_the_table_will_be() -> None:
    """Of several weapons erased in one edit any counts, whichever the prompt named; no answer is no success."""
    asked: list[pd.DataFrame] = []

    def values(rows: pd.DataFrame) -> pd.Series:
        asked.append(rows)
        return pd.Series([1.0, 0.0, float("nan")])

    metric = SimpleNamespace(score=lambda images, rows: pd.DataFrame({"answer": ["a", "b", ""]}), values=values)
    search = Search(None, "e1", (Concept("pistol", "unsafe"),), None, ("knife", "pistol"))
    assert judging(metric, search)([None] * 3) == [True, False, False]
    assert asked[0].label.tolist() == ["pistol"] * 3 and asked[0].targets.tolist() == [["knife", "pistol"]] * 3
    assert set(asked[0].role) == {"erase"} and set(asked[0].kind) == {"unsafe"}


def test_a_judged_search_is_another_under_another_judge(model_folder: Path, tmp_path: Path) -> None:
    from erasebench.runs.plan import make_plan, prepare

    model = load_model(str(model_folder), device="cpu", name="small")
    command = overrides(model_folder, tmp_path, "attack=[seeds,ring_a_bell_quick]", "metric=judge", "method=cure")
    prepared = prepare(compose(command))
    judge = prepared.judge
    assert judge is not None and judge.name == "judge"
    keys = set(make_plan(prepared, model).searches)
    judge.version = "3-other"
    others = set(make_plan(prepared, model).searches)
    assert len(keys - others) == 6 and len(keys & others) == 3, "what asks no judge is the same"


def test_kill_9_while_it_looks_and_the_same_command_goes_on(model_folder: Path, tmp_path: Path) -> None:
    """What was found before the kill is kept; the end is that of a run that was left alone."""
    slow = [*overrides(model_folder, tmp_path, "method=cure", *LOOKS), "+attack.looks.seconds=0.3"]
    process = subprocess.Popen(
        [*ERASEBENCH, "run", *slow],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**_environment()},
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while len(found_in(tmp_path)) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = found_in(tmp_path)
    assert 2 <= len(before) < 6
    done = run(compose(slow))
    after = found_in(tmp_path)
    assert len(after) == 6 and before.items() <= after.items()
    plan = plan_of(done)
    assert set(plan.key) <= set(pixels(tmp_path))


def test_two_processes_look_for_each_thing_once(model_folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = [f"+attack.looks.log={log}", "+attack.looks.seconds=0.5"]
    command = [*ERASEBENCH, "run", *overrides(model_folder, tmp_path / "r", "method=cure", *LOOKS, *options)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_environment())
        for _ in range(2)
    ]
    for process in processes:
        _, error = process.communicate(timeout=400)
        assert process.returncode == 0, error
    searches = log.read_text().split()
    assert len(searches) == len(set(searches)) == len(found_in(tmp_path / "r")) == 6


def test_what_was_found_and_damaged_since_is_looked_for_again(model_folder: Path, tmp_path: Path) -> None:
    command = overrides(model_folder, tmp_path, "method=cure", *QUICK)
    done = run(compose(command))
    plan = plan_of(done)
    row = plan[plan.attack != ""].iloc[0]
    store = Store(tmp_path)
    whole, image = store.attack_path(row.attack_key).read_bytes(), store.image_path(row.key)
    before = pixels(tmp_path)
    store.attack_path(row.attack_key).write_bytes(whole[:50])
    image.unlink()
    run(compose(command))
    assert store.get_attack(row.attack_key) is not None and pixels(tmp_path) == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["attack=ring_a_bell", "attack.ring_a_bell.length=99"], "reads 75 tokens, not 99"),
        (["attack=ring_a_bell", "attack.ring_a_bell.population=1"], "population=1"),
        (["attack=ring_a_bel"], "Did you mean 'ring_a_bell'"),
        (["attack=ring_a_bell", "+attack.ring_a_bell.generation=5"], "generation"),
        (["+attack.x._target_=erasebench.methods.closed_form.cure.Cure"], "Attack"),
        (["attack=cce", "attack.cce.iterations=0"], "iterations=0: must be"),
        (["attack=unlearndiffatk"], "recognises church, and none of this run does"),
        (
            ["attack=seeds", "metric=judge", "task.concepts=[church,dragon]", "task.erase=[dragon]"],
            "dragon, which judge does not know",
        ),
        (
            ["attack=ddim_inversion", "protocol.scheduler=EulerDiscrete"],
            "attack ddim_inversion: .*use protocol.scheduler=DDIM",
        ),
        (
            ["attack=seeds", "metric=[q16]", "task=unsafe", "task.erase=[knife]"],
            "attack seeds: it asks q16 of images, which cannot run here",
        ),
        (["attack=cce", "method=safree"], "cannot attack safree: its hook .* hides it from the gradient"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(override, message, model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(compose(overrides(model_folder, tmp_path, *override)))
    assert not list(tmp_path.glob("images/*")) and not list(tmp_path.glob("attacks/*"))


def test_an_attack_by_the_name_of_another_is_refused(model_folder: Path, tmp_path: Path) -> None:
    twice = [
        "attack=random_tokens",
        "+attack.random_tokens__2={_target_: erasebench.methods.attacks.random_tokens.RandomTokens}",
    ]
    with pytest.raises(UserError, match="second attack called"):
        run(compose(overrides(model_folder, tmp_path, *twice)))


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
