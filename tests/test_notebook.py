"""The functions for a notebook do what the command does, with values in between."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import erasebench as eb
from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.edit import Edit
from erasebench.errors import UserError
from erasebench.images import generate as images
from erasebench.methods.closed_form.uce import Uce
from erasebench.metrics.judge import Judge


class Pairs(Judge):
    name = "pairs"
    paired_with = "original_key"


@pytest.fixture(scope="module")
def model():
    return eb.load_model("embedded", device="cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


def test_importing_the_package_brings_nothing_heavy_along():
    code = "import sys, erasebench; print([name for name in ('torch', 'pandas', 'diffusers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = eb.nothing


def test_a_shipped_concept_brings_its_task():
    church = eb.task("church")
    assert church.kind == "object" and church.names == ("church",) and "gas pump" in church.retain
    both = eb.task("Claude Monet", "Vincent van Gogh", anchor="art", retain=[""])
    assert both.names == ("Claude Monet", "Vincent van Gogh") and both.retain == ("",)
    assert {target.anchor for target in both.targets} == {"art"}
    assert "handgun" in eb.task("pistol").targets[0].phrases


def test_any_other_concept_needs_a_kind():
    with pytest.raises(UserError, match=r'poodle: .*kind="object"'):
        eb.task("poodle")
    with pytest.raises(UserError, match="no concept"):
        eb.task()
    with pytest.raises(UserError, match="church, Claude Monet: not in one"):
        eb.task("church", "Claude Monet")
    own = eb.task("poodle", kind="object", phrases=["woolly dog"], retain=["beagle"])
    assert own == ErasureTask((Concept("poodle", "object", ("woolly dog",)),), ("beagle",))
    with pytest.raises(UserError, match="phrases are of one concept"):
        eb.task("a", "b", kind="object", phrases=["c"])


def test_erase_and_look(model, store, monkeypatch):
    task = eb.task("church")
    edit = eb.erase(model, "uce", task, store=store, lam=0.7)
    assert edit.key == Uce(lam=0.7).key(model.identity, task) and edit.info["model"]["name"] == "embedded"
    assert (
        repr(edit) == f"<Edit {edit.key[:12]}: uce of church, {len(edit.changes)} weights>" and len(repr(model)) < 300
    )
    assert repr(next(iter(edit.changes.values()))) == "<Change token [128, 128]>"
    before = eb.generate(model, ["a photo of a church"] * 3, store=store)
    after = eb.generate(model, ["a photo of a church"] * 3, edit=edit, store=store)
    assert [image.size for image in before + after] == [(64, 64)] * 6
    seen = eb.score(before, "judge", label="church"), eb.score(after, "judge", label="church")
    assert seen[0].number.mean() == 1.0 and seen[1].number.mean() < 0.5 and set(seen[0].kind) == {"object"}

    # Neither edit nor image is made again.
    monkeypatch.setattr(images, "_sample", None)
    monkeypatch.setattr(Uce, "edit", None)
    assert eb.erase(model, "uce", task, store=store, lam=0.7).key == edit.key
    again = eb.generate(model, ["a photo of a church"] * 3, edit=edit, store=store)
    assert all(np.array_equal(a, b) for a, b in zip(after, again, strict=True))


def test_seeds_and_settings_decide_an_image(model, store):
    first, second = eb.generate(model, ["a tench", "a tench"], store=store)
    third = eb.generate(model, "a tench", seeds=[1], store=store)[0]
    few = eb.generate(model, "a tench", seeds=[1], store=store, steps=3)[0]
    assert not np.array_equal(first, second) and np.array_equal(second, third) and not np.array_equal(third, few)


def test_what_cannot_be_is_refused_by_name(model, store):
    task, grey = eb.task("church"), Image.new("RGB", (64, 64))
    for message, call in (
        ("curee: no such method. Did you mean 'cure'", lambda: eb.erase(model, "curee", task, store=store)),
        ("main: several methods in one", lambda: eb.erase(model, "main", task, store=store)),
        ("alfa.*no such option.*alpha", lambda: eb.erase(model, "cure", task, store=store, alfa=2)),
        ("2 seeds and 1 prompts", lambda: eb.generate(model, "a", seeds=[1, 2], store=store)),
        ("an edit is no model", lambda: eb.generate(Edit({}), "a", store=store)),
        ("no key", lambda: eb.generate(model, "a", edit=Edit({}), store=store)),
        ("step: no setting of a protocol. Did you mean 'steps'", lambda: eb.generate(model, "a", store=store, step=3)),
        ("steps=0", lambda: eb.generate(model, "a", store=store, steps=0)),
        ("juge: no such metric", lambda: eb.score([grey], "juge")),
        ("pairs: compares with the unedited model's images", lambda: eb.score([grey], Pairs())),
        ("dry run", lambda: eb.compare("noop", "object", erase=["church"], store=store, settings=["dry_run=true"])),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            call()


def test_compare_is_the_command(store, tmp_path):
    settings = [
        "prompts.per_erased=2",
        "prompts.per_paraphrased=0",
        "prompts.per_near=0",
        "prompts.per_retained=1",
        "prompts.general=0",
        "metric=[judge]",
    ]
    table = eb.compare(["uce", "noop"], "object", erase=["church"], store=store, settings=settings)
    assert {"none", "uce", "noop"} == set(table.eraser)
    row = table[(table.eraser == "none") & (table.role == "erase") & (table.metric.str.startswith("judge"))].iloc[0]
    assert row.value == 1 and row.low < 1 and row.n == 2
    again = eb.load_run(store=store)
    assert len(again) == len(table) and list(again.eraser) == list(table.eraser)
    with pytest.raises(UserError, match=re.escape("no run")):
        eb.load_run(store=tmp_path / "empty")


def test_prompts_of_a_table_are_checked_and_kept_as_a_file_is(store):
    prompts = pd.DataFrame({"prompt": ["a photo of a church", "a photo of a gas pump"] * 2, "label": ["church", "gas pump"] * 2, "seed": [1, 2, 3, 4]})  # fmt: skip
    settings = ["metric=[judge]", "protocol.steps=2"]
    table = eb.compare("uce", "object", erase=["church"], prompts=prompts, store=store, settings=settings)
    rates = table[(table.metric.str.startswith("judge")) & (table.task == "all")]
    assert set(rates[rates.role == "erase"].n) == {2} and set(rates[rates.role == "retain"].n) == {2}
    files = list((store / "prompts").iterdir())
    odd = store / "a, b (1)"
    assert len(eb.compare("noop", "object", erase=["church"], prompts=prompts, store=odd, settings=settings))
    eb.compare("uce", "object", erase=["church"], prompts=prompts, store=store, settings=settings)
    assert list((store / "prompts").iterdir()) == files and len(files) == 1
    with pytest.raises(UserError, match=r"row 2.*seed"):
        eb.compare("uce", prompts=prompts.assign(seed=[1, -2, 3, 4]), store=store, settings=settings)
