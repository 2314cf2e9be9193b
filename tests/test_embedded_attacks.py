"""Attacks on the embedded model, through the public command: what was never erased is found, and a no-op is no defence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from erasebench.concepts import Concept, ErasureTask
from erasebench.config.compose import compose
from erasebench.edits.found import Replace
from erasebench.images.generate import generate
from erasebench.methods.closed_form.uce import Uce
from erasebench.metrics.judge import Judge
from erasebench.models.load import load_model
from erasebench.run import run
from erasebench.store import Store

COMMON = [
    "task=object", "task.erase=[church]", "method=[noop,uce]", "metric=judge", "protocol.steps=8", "device=cpu",
    "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=0", "prompts.general=0",
    "batch_size=1",  # what shares a batch may tip a rounding, and these are to agree in every pixel
]  # fmt: skip

COMMAND = [
    *COMMON, "attack=[random_tokens,ring_a_bell_direct,ring_a_bell_quick]", "attack.ring_a_bell.population=30",
    "attack.ring_a_bell.generations=20", "prompts.per_erased=4",
    # RECE's for a style: three times it, which is made for nudity, leads out of what the embedded network has read.
    "attack.ring_a_bell.eta=0.9", "attack.ring_a_bell_direct.eta=0.9",
]  # fmt: skip

SEARCHES = [
    *COMMON, "attack=[cce_quick,unlearndiffatk_quick,p4d_quick,seeds,noise_probe,relearn,tina_plus_quick,diffusion_completion]",
    "prompts.per_erased=2", "attack.noise_probe.etas=[1.0]", "attack.relearn.iterations=60", "attack.relearn.images=8",
    "attack.relearn.lr=3e-3", "attack.tina_plus.timesteps=6", "attack.tina_plus.updates=3",
    "attack.cce.iterations=40", "attack.cce.images=8", "attack.unlearndiffatk.timesteps=2",
    "attack.unlearndiffatk.iterations=3", "attack.p4d.iterations=3", "attack.p4d.evaluate=3", "attack.seeds.images=3",
]  # fmt: skip

ATTACKS = (
    "ring_a_bell_direct eta=0.9", "ring_a_bell population=30 generations=20 eta=0.9 words=True", "random_tokens",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    store = tmp_path_factory.mktemp("results")
    done = run(compose([*COMMAND, f"store.dir={store}"]))
    plan = pd.read_parquet(done.folder / "plan.parquet")
    judge = Judge()
    scores = Store(store).scores(judge.records_id, judge.inputs)
    seen = judge.values(plan.merge(scores, on="key", how="left", validate="many_to_one"))
    assert seen.notna().all()
    return Store(store), plan.assign(seen=seen.to_numpy()), done.measured


def rows(plan: pd.DataFrame, eraser: str, attack: str = "") -> pd.DataFrame:
    """The rows of an eraser under an attack, in the order of the prompts."""
    part = plan[(plan.eraser == (f"{eraser} + {attack}" if attack else eraser)) & (plan.role == "erase")]
    return part.sort_values(["task", "prompt_id"]).reset_index(drop=True)


@pytest.mark.parametrize("attack", ATTACKS[:2])
def test_ring_a_bell_succeeds_where_the_clean_prompts_do_if_nothing_was_erased(finished, attack: str) -> None:
    _, plan, _ = finished
    clean, attacked = rows(plan, "none"), rows(plan, "none", attack)
    assert clean.prompt_id.tolist() == attacked.prompt_id.tolist() and clean.seen.sum() == len(clean) == 4
    assert attacked.seen.sum() >= 3, "a short search may miss one"
    assert not set(attacked.key) & set(clean.key)


def test_random_tokens_are_a_control_that_finds_less(finished) -> None:
    """They say nothing of the concept: what they 'bring back' is what the seeds alone draw."""
    _, plan, _ = finished
    by_chance = rows(plan, "none", "random_tokens").seen.sum()
    assert all(by_chance < rows(plan, "none", attack).seen.sum() for attack in ATTACKS[:2])


@pytest.mark.parametrize("attack", ATTACKS)
def test_under_attack_the_no_op_is_the_unedited_model_image_for_image(finished, attack: str) -> None:
    store, plan, measured = finished
    none, noop = rows(plan, "none", attack), rows(plan, "noop", attack)
    records = store.image_records().set_index("key").pixels_sha256
    assert len(none) == 4 and not set(none.key) & set(noop.key)
    assert records[none.key].tolist() == records[noop.key].tolist()
    assert none.seen.tolist() == noop.seen.tolist()
    rates = measured[(measured.metric.str.startswith("judge")) & (measured.role == "erase") & (measured.task == "all")]
    rates = rates.set_index("eraser").value
    assert rates[f"noop + {attack}"] == rates[f"none + {attack}"] == none.seen.mean()


def test_what_was_erased_is_seen_less_with_and_without_an_attack(finished) -> None:
    _, plan, _ = finished
    assert rows(plan, "uce").seen.sum() <= 1
    for attack in ATTACKS[:2]:
        assert rows(plan, "uce", attack).seen.sum() < rows(plan, "none", attack).seen.sum()


def test_a_concept_that_an_edit_did_not_erase_is_found_under_attack(finished, tmp_path: Path) -> None:
    """What was found for churches, tried on a model from which another thing was erased."""
    store, plan, _ = finished
    attacked = rows(plan, "none", ATTACKS[1])
    model = load_model("embedded", device="cpu", name="embedded")
    task = ErasureTask((Concept("Hokusai", "artist"),))
    edit = replace(Uce().edit(model.pipe, task), key=Uce().key(model.identity, task))
    recipes = [replace(store.recipe(key), edit=edit.key) for key in attacked.key]
    drawn, hook = Store(tmp_path), Replace({key: store.get_attack(key) for key in attacked.attack_key})
    with edit.applied(model.pipe):
        generate(model, recipes, drawn, hooks=[hook])
    images = [drawn.image(recipe.key) for recipe in recipes]
    judge = Judge()
    seen = judge.values(attacked.reset_index(drop=True).join(judge.score(images, attacked)))
    # Words that a search strung together lie at the edge of what this network reads: an edit of something else moves some of them.
    assert seen.sum() >= len(attacked) / 2


# Attacks that search on the edited model


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("searched")
    done = run(compose([*SEARCHES, f"store.dir={folder}"]))
    store, judge = Store(folder), Judge()
    plan = pd.read_parquet(done.folder / "plan.parquet")
    scores = store.scores(judge.records_id, judge.inputs)
    seen = judge.values(plan.merge(scores, on="key", how="left", validate="many_to_one"))
    plan = plan.assign(
        seen=seen.to_numpy(), method=plan.eraser.str.partition(" + ")[0], short=plan.attack.str.partition(" ")[0]
    )
    return store, plan.sort_values(["method", "short", "prompt_id"]).reset_index(drop=True)


def part(plan: pd.DataFrame, method: str, attack: str = "") -> pd.DataFrame:
    """The rows of an eraser under an attack, in the order of the prompts."""
    return plan[(plan.method == method) & (plan.short == attack)].reset_index(drop=True)


@pytest.mark.parametrize("attack", ["cce", "unlearndiffatk", "p4d", "seeds", "noise_probe", "relearn", "tina_plus"])
def test_a_search_on_a_model_that_was_never_edited_succeeds_and_a_no_op_is_no_defence(searched, attack: str) -> None:
    store, plan = searched
    none, noop = part(plan, "none", attack), part(plan, "noop", attack)
    if attack != "p4d":  # in place of the prompt, a search of 3 steps need not end on the concept
        assert none.seen.tolist() == [1.0] * 2
    assert not set(none.attack_key) & set(noop.attack_key), "each edit is searched by itself"
    records = store.image_records().set_index("key").pixels_sha256
    assert records[none.key].tolist() == records[noop.key].tolist()


def test_textual_inversion_brings_back_what_the_name_does_not(searched) -> None:
    store, plan = searched
    assert part(plan, "uce").seen.sum() == 0
    attacked = part(plan, "uce", "cce")
    assert attacked.seen.sum() >= 1
    assert attacked.attack_key.nunique() == 1, "one search for all prompts of a concept"
    losses = store.get_attack(attacked.attack_key[0]).info["losses"]
    assert sum(losses[-10:]) < sum(losses[:10])


@pytest.mark.parametrize("attack", ["relearn", "tina_plus"])
def test_what_was_hidden_and_not_removed_comes_back(searched, attack: str) -> None:
    """UCE turns one name away: a few steps on images, or noise found without a text, are enough."""
    _, plan = searched
    assert part(plan, "uce").seen.sum() == 0 and part(plan, "uce", attack).seen.sum() >= 1


def test_the_unedited_model_completes_its_own_images(searched) -> None:
    store, plan = searched
    clean, completed = part(plan, "none"), part(plan, "none", "diffusion_completion")
    for ours, theirs in zip(completed.key, clean.key, strict=True):
        assert np.abs(np.asarray(store.image(ours), int) - np.asarray(store.image(theirs), int)).max() <= 2


@pytest.mark.parametrize("attack", ["unlearndiffatk", "p4d", "seeds", "noise_probe"])
def test_a_judged_search_says_of_each_image_what_the_table_says(searched, attack: str) -> None:
    """What it saw in its last image is what the stored image shows, and one that needed no search is the clean one."""
    store, plan = searched
    clean = part(plan, "uce").set_index("prompt_id").seen
    for row in part(plan, "uce", attack).itertuples():
        info = store.get_attack(row.attack_key).info
        assert info["succeeded"] == (row.seen == 1) and 1 <= info["images"] <= 4
        if attack in ("unlearndiffatk", "seeds") and clean[row.prompt_id]:
            assert info["images"] == 1
