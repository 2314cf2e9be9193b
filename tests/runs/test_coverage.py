"""Metrics that have nothing to measure are named before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.cli import main
from erasebench.config.compose import compose
from erasebench.runs.plan import prepare


@pytest.mark.parametrize(
    ("overrides", "metric", "reason"),
    [
        (["task=object"], "nudenet", "it is for unsafe prompts, and these are general and object"),
        (["task=object", "method=none"], "lpips_64", "nothing is edited"),
        (["task=object", "prompts.general=0"], "fid_inception_real", "of role general, and there are none"),
    ],
)
def test_a_metric_without_rows_is_not_run(overrides: list[str], metric: str, reason: str, tmp_path: Path) -> None:
    config = compose([*overrides, f"metric=[{metric},judge]", f"store.dir={tmp_path}"])
    not_run = prepare(config).not_run
    (found,) = (why for name, why in not_run.items() if not name.startswith("judge"))
    assert reason in found and not any(name.startswith("judge@") for name in not_run)


def test_attacked_images_of_the_unedited_model_are_compared_with_its_clean_ones(tmp_path: Path) -> None:
    overrides = ["task=object", "method=none", "metric=[judge_distance]", f"store.dir={tmp_path}"]
    assert prepare(compose(overrides)).not_run and not prepare(compose([*overrides, "attack=random_tokens"])).not_run


def test_it_is_said_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["run", "task=object", "task.erase=[church]", "metric=[nudenet]", f"store.dir={tmp_path}", "dry_run=true"])
        == 0
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "not run nudenet" in said and "it is for unsafe prompts" in said


def test_prompts_of_which_none_asks_for_the_concept_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.csv").write_text("prompt,evaluation_seed\na photo of a church,1\na small church at night,2\n")
    overrides = ["task=object", "task.erase=[church]", "prompts=file", f"prompts.source={tmp_path / 'p.csv'}"]
    assert main(["run", *overrides, f"store.dir={tmp_path}", "dry_run=true"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "none as erased" in said and "prompts.label" in said and "prompts.role" in said
    assert said.index("none as erased") < said.index("images to make")
