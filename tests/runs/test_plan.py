"""What a run is: a hash that knows all that decides its numbers, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.runs import plan as plan_module
from erasebench.runs.plan import Prepared, prepare

FEW = ["task=object", "task.erase=[church]", "method=main", "metric=[judge,kid_embedded]", "device=cpu"]


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return of(tmp_path)


def of(store: Path, *overrides: str) -> Prepared:
    return prepare(compose([*FEW, f"store.dir={store}", *overrides]))


@pytest.mark.parametrize(
    "override",
    ["batch_size=3", "name=mine", "part=2/3", "dry_run=true", "dtype=float32"],
)
def test_where_how_fast_and_under_which_name_are_no_part_of_it(
    override: str, prepared: Prepared, tmp_path: Path
) -> None:
    assert of(tmp_path / "elsewhere", override).hash == prepared.hash


@pytest.mark.parametrize(
    "override",
    [
        "protocol.steps=3",
        "method.cure.alpha=3",
        "task.erase=[tench]",
        "prompts.per_erased=3",
        "metric=[judge]",
        "dtype=bfloat16",
    ],
)
def test_what_decides_a_number_is(override: str, prepared: Prepared, tmp_path: Path) -> None:
    assert of(tmp_path, override).hash != prepared.hash


def test_versions_of_what_makes_the_numbers_are(prepared: Prepared, tmp_path: Path, monkeypatch) -> None:
    from erasebench.methods.closed_form.uce import Uce
    from erasebench.metrics.judge import Judge

    hashes = [prepared.hash]
    with monkeypatch.context() as patch:
        patch.setattr(plan_module, "GENERATOR_VERSION", "99")
        hashes.append(of(tmp_path).hash)
    with monkeypatch.context() as patch:
        patch.setattr(Uce, "version", "99")
        hashes.append(of(tmp_path).hash)
    with monkeypatch.context() as patch:
        real = Judge.__init__

        def newer(self, *args, **options):
            real(self, *args, **options)
            self.version = "99-" + self.version.partition("-")[2]

        patch.setattr(Judge, "__init__", newer)
        hashes.append(of(tmp_path).hash)
    assert len(set(hashes)) == 4
    assert of(tmp_path).hash == prepared.hash


def test_which_weights_of_a_metric_are_here_is_not(prepared: Prepared, tmp_path: Path, monkeypatch) -> None:
    """They may be fetched between two calls of one command."""
    from erasebench.metrics.judge import Judge

    real = Judge.__init__

    def without_weights(self, *args, **options):
        real(self, *args, **options)
        self.version = self.version.partition("-")[0] + "-absent"

    monkeypatch.setattr(Judge, "__init__", without_weights)
    assert of(tmp_path).hash == prepared.hash


def test_the_job_of_an_experiment_without_the_experiment_is_another_run(tmp_path: Path) -> None:
    with_it = prepare(compose(["experiment=cure_objects", "scale=tiny", f"store.dir={tmp_path}", "device=cpu"]))
    without = dataclasses.replace(with_it, experiment={})
    assert with_it.experiment["name"] == "cure_objects" and with_it.hash != without.hash
    assert dataclasses.replace(with_it, experiment={"name": "cure_objects", "note": "other words"}).hash == with_it.hash


def test_prepared_holds_values_that_nobody_changes(prepared: Prepared) -> None:
    assert type(prepared.config) is dict and prepared.model.path == "embedded" and prepared.protocol.name == "embedded"
    with pytest.raises(dataclasses.FrozenInstanceError):
        prepared.batch_size = 3


def test_a_part_that_cannot_be_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="part=0/3: write which part of how many"):
        of(tmp_path, "part=0/3")
