"""``erasebench score``: a folder of images gives the numbers that a run of the same images gave."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from erasebench.cli import main
from erasebench.commands.score import matched
from erasebench.errors import UserError
from erasebench.metrics.judge import Judge

METRICS = ["--metric", "judge", "--metric", "clip_score_embedded"]


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A folder with the images of a small run, ``images``, their prompts, and the run's numbers."""
    folder = tmp_path_factory.mktemp("score")
    overrides = [
        "task=object",
        "task.erase=[church]",
        "method=none",
        "metric=[judge,clip_score_embedded]",
        "device=cpu",
    ]
    overrides += [
        "prompts.per_erased=2",
        "prompts.per_paraphrased=0",
        "prompts.per_near=0",
        "prompts.per_retained=1",
        "prompts.general=2",
        "protocol.steps=4",
    ]
    assert main(["run", *overrides, f"store.dir={folder / 'results'}"]) == 0
    (plan_path,) = folder.glob("results/runs/*/plan.parquet")
    plan = pd.read_parquet(plan_path)
    (folder / "images").mkdir()
    for number, key in enumerate(plan.key, 1):
        shutil.copy(folder / "results" / "images" / key[:2] / f"{key}.png", folder / "images" / f"{number:04d}.png")
    prompts = pd.DataFrame({"case_number": range(1, len(plan) + 1), "prompt": plan.prompt, "class": plan.label})
    prompts.to_csv(folder / "prompts.csv", index=False)
    return folder, pd.read_csv(plan_path.parent / "tables" / "measured.csv")


def scored(folder: Path, *more: str) -> int:
    kind = ["--kind", "object"] if "--erase" in more else []
    given = ["--prompts", str(folder / "prompts.csv"), "--store", str(folder / "st")]
    return main(["score", str(folder / "images"), *given, *kind, *more])


def test_the_numbers_are_those_of_a_run_and_nothing_is_scored_twice(
    a_run: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, measured = a_run
    assert scored(folder, "--erase", "church", *METRICS) == 0
    (written,) = (folder / "st" / "tables").glob("scored-images-*/measured.csv")
    ours = pd.read_csv(written)
    columns = ["role", "metric", "value", "low", "high", "n"]
    expected = measured[(measured.role != "cost") & (measured.task == "all")][columns]
    got = ours[ours.task == "all"][columns]
    pd.testing.assert_frame_equal(
        got.sort_values(columns[:2]).reset_index(drop=True), expected.sort_values(columns[:2]).reset_index(drop=True)
    )
    assert (written.parent / "object.md").exists() and "folder images" in (written.parent / "object.md").read_text()
    assert not list((folder / "st").glob("images/*")), "images stay where they are"
    monkeypatch.setattr(Judge, "score", lambda *_: pytest.fail("is scored again"))
    assert scored(folder, "--erase", "church", *METRICS, "--out", str(tmp_path / "out")) == 0
    assert pd.read_csv(tmp_path / "out" / "measured.csv").value.tolist() == ours.value.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--erase", "church", "--metric", "kid_embedded"], "kid_embedded: compares with the unedited model's images"),
        (["--erase", "church", "--metric", "lpips_64"], "lpips_64: compares with the unedited model's images"),
        (["--metric", "judge", "--kind", "object"], "what was to be erased? Name labels with --erase (tench, "),
        (["--metric", "judge"], "of which kind are its concepts? Say --kind object, artist"),
        (["--erase", "chruch", "--metric", "judge"], "Did you mean 'church'"),
        (["--erase", "church", "--metric", "juge"], "Did you mean 'judge'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_scored(
    arguments: list[str], message: str, a_run: tuple[Path, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    assert scored(a_run[0], *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_and_a_folder_that_is_not_there_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "prompts.csv").write_text("prompt,class\na church,church\n")
    assert scored(tmp_path, "--erase", "church", "--metric", "judge") == 2
    assert "images: no image in it" in capsys.readouterr().err
    (tmp_path / "images" / "1.png").write_bytes(b"\x89PNG")
    assert scored(tmp_path, "--erase", "church", "--metric", "judge") == 2
    assert "1.png: not an image that can be read" in capsys.readouterr().err


def test_images_find_their_prompts_by_name_or_order() -> None:
    rows = pd.DataFrame({"prompt_id": ["7", "8", "a_1"]})
    files = [Path(name) for name in ("00007.png", "8_0.png", "8_1.png", "a_1.png", "a_1-2.jpg")]
    found = matched(files, rows, False)
    assert found.prompt_id.tolist() == ["7", "8/0", "8/1", "a_1", "a_1/2"] and found.file.tolist() == files
    assert matched(files[:3], rows, True).prompt_id.tolist() == ["7", "8", "a_1"]
    for wrong, in_order, message in (
        ([Path("9.png")], False, "9.png: belongs to no prompt; their ids are 7, 8, a_1"),
        ([Path("7.png"), Path("07.png")], False, "7.png and 07.png: both are image 7"),
        (files, True, "5 images and 3 prompts"),
    ):
        with pytest.raises(UserError, match=message):
            matched(wrong, rows, in_order)


def test_a_metric_without_an_image_of_its_role_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    for number in (1, 2, 3):
        pixels = np.full((64, 64, 3), 80 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.jpg")
    (tmp_path / "prompts.csv").write_text("prompt\na tree\na cup\na star\na boat\n")
    assert scored(tmp_path, *METRICS) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 4 prompts have no image here, the first: 4" in said
    assert "not run: judge@" in said and "no image is of its kind and role" in said
