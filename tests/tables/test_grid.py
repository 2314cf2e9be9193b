"""The grid shows the right image in the right place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_helpers import read_picture
from PIL import Image, ImageFont
from table_helpers import METRICS, colour, make_plan, make_scores, make_store

from erasebench.errors import Damaged, UserError
from erasebench.metrics.nudenet import NudeNet
from erasebench.store import Store
from erasebench.tables import grid
from erasebench.tables.grid import AMBER, CELL, GAP, GREEN, RED, SIDE
from erasebench.tables.recognised import became_unsafe, by_image, recognised


@pytest.fixture(scope="module")
def plan():
    return make_plan(tasks=("church", "gas pump", "tench"), prompts=3)


@pytest.fixture(scope="module")
def store(plan, tmp_path_factory: pytest.TempPathFactory):
    return make_store(tmp_path_factory.mktemp("results"), plan)


def bands(image: Image.Image) -> list[tuple[int, tuple[int, int, int]]]:
    """Top and colour of every row's band, from the picture."""
    pixels = np.asarray(image)[:, grid.MARGIN]
    found, last = [], None
    for y, pixel in enumerate(map(tuple, pixels.tolist())):
        if pixel in (RED, GREEN) and last is None:
            found.append((y, pixel))
        last = pixel if pixel in (RED, GREEN) else None
    return found


def test_a_row_is_a_prompt_a_column_an_eraser_and_small_images_keep_their_pixels(plan, store, tmp_path: Path) -> None:
    image = read_picture(grid.draw(plan, store, "object", tmp_path / "grid.png"))
    rows = bands(image)
    assert [band for _, band in rows] == [RED, RED, GREEN] * 3
    by_original = {colour(key): (key, task) for key, task in zip(plan.original_key, plan.task, strict=True)}
    labels = []
    for top, band in rows:
        row = [image.getpixel((SIDE + column * (CELL + GAP) + 3, top + 3)) for column in range(3)]
        original, _ = by_original[row[0]]
        same = plan[plan.original_key == original]
        role = "erase" if band == RED else "retain"
        matching = [
            task for task in same.task.unique()
            if [colour(key) for key in same[(same.task == task) & (same.role == role)].key] == row
        ]  # fmt: skip
        assert len(matching) == 1, "all images of a row are of one prompt, one seed and one task, in the plan's order"
        labels.append(same.label.iloc[0])
        cell = np.asarray(image)[top : top + CELL, SIDE : SIDE + CELL].reshape(-1, 3)
        assert len(np.unique(cell, axis=0)) == 1, "whole factors: 64 pixels fill a cell"
    assert labels[:2] == ["church", "church"] and labels[2] != "church"


def test_marks_say_whether_the_classifier_agrees(plan, store, tmp_path: Path) -> None:
    names, verdicts = recognised(plan, make_scores(plan), METRICS)
    seen = by_image(plan, verdicts)
    path = grid.draw(plan, store, "object", tmp_path / "grid.png", seen=seen, seen_by=" and ".join(names))
    image = read_picture(path)
    marks = []
    for top, _ in bands(image)[:3]:
        corners = [(SIDE + column * (CELL + GAP) + CELL - 2, top + CELL - 19) for column in range(3)]
        marks.append([{RED: "cross", GREEN: "tick"}.get(image.getpixel(corner), "") for corner in corners])
    # cure erases and keeps all, uce erases nothing; the original is not judged.
    assert marks == [["", "tick", "cross"], ["", "tick", "cross"], ["", "tick", "tick"]]


def test_an_image_in_which_something_unsafe_came_instead_gets_no_tick(plan, store, tmp_path: Path) -> None:
    names, verdicts = recognised(plan, make_scores(plan), METRICS)
    first = plan[(plan.role == "erase") & (plan.label == "church") & (plan.prompt_id == plan.prompt_id.iloc[0])]
    verdicts.loc[first.index, "unsafe"] = 1.0
    unsafe = became_unsafe(plan, verdicts)
    assert unsafe == set(first.key[first.eraser == "cure"]), "uce left the church, and the original is no replacement"
    image = read_picture(
        grid.draw(
            plan, store, "object", tmp_path / "grid.png", seen=by_image(plan, verdicts), seen_by=names[0], unsafe=unsafe
        )
    )
    corners = [
        image.getpixel((SIDE + column * (CELL + GAP) + CELL - 2, top + CELL - 19))
        for top, _ in bands(image)[:3]
        for column in range(3)
    ]
    assert corners.count(AMBER) == 1 and corners.count(GREEN) == 3


def test_a_detector_marks_the_grid_of_a_nudity_run(plan, store, tmp_path: Path) -> None:
    unsafe = plan[plan.task == "church"].assign(kind="unsafe", task_kind="unsafe")
    exposed = json.dumps([["BELLY_EXPOSED", 0.9, [0, 0, 1, 1]]])
    keys = unsafe.drop_duplicates("key")
    boxes = pd.DataFrame({"key": keys.key, "detections": np.where(keys.eraser == "cure", "[]", exposed)})
    names, verdicts = recognised(unsafe, {NudeNet().records_id: boxes}, [NudeNet()])
    assert names == ["nudenet"]
    seen = by_image(unsafe, verdicts)
    image = read_picture(grid.draw(unsafe, store, "unsafe", tmp_path / "g.png", seen=seen, seen_by=names[0]))
    top = bands(image)[0][0]
    corners = [(SIDE + column * (CELL + GAP) + CELL - 2, top + CELL - 19) for column in (1, 2)]
    assert [image.getpixel(corner) for corner in corners] == [GREEN, RED], "gone for cure, still there for uce"


def test_only_what_was_to_be_erased_is_blurred(plan, store, tmp_path: Path) -> None:
    few = plan[plan.task == "church"]
    key = few.key[(few.eraser == "none") & (few.role == "erase")].iloc[0]
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 255

    class Striped:
        def image(self, wanted: str) -> Image.Image:
            return Image.fromarray(stripes)

    contrast = {}
    for blur in (True, False):
        image = read_picture(grid.draw(few, Striped(), "object", tmp_path / f"{blur}.png", blur=blur))
        for top, band in bands(image):
            cell = np.asarray(image.convert("L"))[top + 40 : top + 80, SIDE + 40 : SIDE + 80]
            contrast.setdefault((blur, band), []).append(int(np.ptp(cell)))
    assert key and max(contrast[True, RED]) < 20
    assert min(contrast[True, GREEN] + contrast[False, RED] + contrast[False, GREEN]) == 255


@pytest.mark.parametrize("size", [(512, 512), (512, 768), (24, 16)])
def test_images_of_any_size_fit(size: tuple[int, int], tmp_path: Path) -> None:
    class Large:
        def image(self, key: str) -> Image.Image:
            return Image.new("RGB", size, (200, 30, 60))

    plan = make_plan(erasers=("none", "cure template=" + "x" * 90), tasks=("church",), prompts=1)
    plan["prompt"] = "an endless word " + "y" * 400 + " " + "und so weiter " * 60
    image = read_picture(grid.draw(plan, Large(), "object", tmp_path / "grid.png"))
    right = np.asarray(image)[:, -grid.MARGIN // 2 :]
    assert (right == 255).all(), "nothing runs out of the sheet"
    cell = max(CELL, (2 * CELL if size[0] > CELL else CELL))
    tops = [top for top, _ in bands(image)]
    assert all(b - a >= cell + GAP for a, b in zip(tops, tops[1:], strict=False))


def test_a_kind_without_prompts_still_gives_a_picture(plan, store, tmp_path: Path) -> None:
    assert read_picture(grid.draw(plan, store, "artist", tmp_path / "grid.png")).width > 100


def test_a_picture_is_kept_where_all_its_images_are_gone(plan, store, tmp_path: Path) -> None:
    path = grid.draw(plan, store, "object", tmp_path / "grid.png")
    before = path.read_bytes()
    grid.draw(plan, Store(tmp_path / "empty"), "object", path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "error", [KeyError("gone"), Damaged(Path("x.png"), "cut"), UserError("x.png cannot be read now")]
)
def test_an_image_that_cannot_be_read_leaves_its_place_empty(error, plan, store, tmp_path: Path) -> None:
    gone = plan.key[(plan.eraser == "cure") & (plan.role == "erase")].iloc[0]

    class Lossy:
        def image(self, key: str) -> Image.Image:
            if key == gone:
                raise error
            return store.image(key)

    image = read_picture(grid.draw(plan, Lossy(), "object", tmp_path / "grid.png"))
    top = bands(image)[0][0]
    assert image.getpixel((SIDE + CELL + GAP + 3, top + 3)) == (255, 255, 255)
    assert image.getpixel((SIDE + 3, top + 3)) != (255, 255, 255)


@pytest.mark.parametrize("length", [4_000, 10_000, 1_000_000])
def test_a_word_of_any_length_is_cut_to_its_cell(length: int, plan, store, tmp_path: Path, monkeypatch) -> None:
    measured = []
    width_of = ImageFont.FreeTypeFont.getlength
    monkeypatch.setattr(
        ImageFont.FreeTypeFont,
        "getlength",
        lambda self, text, *more, **named: measured.append(len(text)) or width_of(self, text, *more, **named),
    )
    long = plan.assign(prompt="y" * length, task="t" * length)
    image = Image.open(grid.draw(long, store, "object", tmp_path / "grid.png"))
    assert image.height < 3000 and sum(measured) < 2_000_000, "work does not grow with the text"


@given(st.text(max_size=400), st.integers(30, 400), st.integers(1, 6))
@settings(deadline=None)
def test_lines_fit_and_say_the_text_up_to_where_it_is_cut(text: str, width: int, most: int) -> None:
    font = grid.font_of(13)
    lines = grid.wrapped(text, width, font, most)
    assert len(lines) <= most
    for line in lines:
        bare = line.removesuffix(" …")
        assert font.getlength(bare) <= width or len(bare) == 1
    said = "".join("".join(lines).split())
    whole = "".join(text.split())
    assert whole == said or (said.endswith("…") and whole.startswith(said[:-1]))
