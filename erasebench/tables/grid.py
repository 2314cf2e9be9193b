"""The grid of images that shows a comparison at a glance."""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

import pandas as pd
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from erasebench.concepts import NEAR, kind_words
from erasebench.edits.label import UNEDITED, shown_row
from erasebench.errors import UserError
from erasebench.files import write_atomic
from erasebench.store import Store

CELL = 128
"""Width and height of an image in a grid, in pixels, at least; smaller images are enlarged by whole factors."""

RED, GREEN, AMBER, INK, GREY = (178, 34, 34), (34, 120, 60), (196, 110, 0), (20, 20, 20), (110, 110, 110)
SIDE, GAP, MARGIN, LINE = 240, 6, 10, 18
HEAD_LINES, TAG_LINES, FOOT_LINES = 8, 2, 10
TASKS_SHOWN, ERASED_SHOWN, RETAINED_SHOWN = 3, 2, 1
FOOT = (
    "Along a row: the same prompt and the same seed. Red: the edit of that row erases what the prompt asks for, so it "
    "should be gone. Green: the prompt asks for something else, which should still be there."
)


def draw(
    plan: pd.DataFrame,
    store: Store,
    kind: str,
    path: Path,
    *,
    blur: bool = False,
    seen: Mapping[str, bool] | None = None,
    seen_by: str = "",
    unsafe: Set[str] = frozenset(),
) -> Path:
    """Draw one kind's grid: a row a prompt, a column an eraser, the same seed along a row.

    Red rows ask for a concept that the edits of their row erase, green rows for one that should stay.

    Args:
        plan: rows of a run.
        store: where the images are; one that is gone leaves its place empty.
        kind: kind of the tasks.
        path: PNG to write; one that is there is kept where all images are gone.
        blur: blur the images of erased unsafe concepts.
        seen: by image key, whether a classifier sees in it what its prompt asks for; images of the erasers then get a
            tick (gone in a red row, still there in a green one) or a cross.
        seen_by: the classifier's name.
        unsafe: keys of images in which something unsafe came instead, which is no success: they get neither, but a ``!``.
    """
    part = plan[plan.task_kind == kind]
    erasers = list(dict.fromkeys(part.eraser))
    rows = _rows_shown(part)
    images = images_of(store, [key for _, keys, _, _ in rows for key in keys.values()])
    if rows and not images and path.exists():
        return path
    cell = max((image.width for image in images.values()), default=CELL)
    width = max(SIDE + len(erasers) * (cell + GAP), 520) + MARGIN
    heads = [shown_row(eraser) for eraser in erasers]
    head_lines = [wrapped(head, cell, font_of(13, bold=True), HEAD_LINES) for head in heads]
    foot = FOOT + (f" ✓ ✗: whether the {seen_by} agrees." if seen else "")
    if any(key in unsafe for _, keys, _, _ in rows for key in keys.values()):
        foot += " !: gone, and something unsafe came instead."
    foot_lines = wrapped(foot, width - 2 * MARGIN, font_of(12), FOOT_LINES)
    top = 40 + LINE * max((len(lines) for lines in head_lines), default=1) + GAP
    sheet = Image.new("RGB", (width, top + len(rows) * (cell + GAP) + len(foot_lines) * LINE + MARGIN), "white")
    canvas = ImageDraw.Draw(sheet)
    canvas.text((MARGIN, 8), f"Erasing {kind_words(kind)}", font=font_of(17, bold=True), fill=INK)
    for column, lines in enumerate(head_lines):
        place = (SIDE + column * (cell + GAP), top - GAP - LINE * len(lines))
        canvas.multiline_text(place, "\n".join(lines), font=font_of(13, bold=True), fill=INK)
    for prompt, keys, erased, task in rows:
        colour = RED if erased else GREEN
        canvas.rectangle((MARGIN - 4, top, MARGIN + 2, top + cell - 1), fill=colour)
        words = f"erased: {task}" if erased else f"kept, with {task} erased"
        tag = wrapped(words, SIDE - 30, font_of(12, bold=True), TAG_LINES)
        canvas.multiline_text((MARGIN + 10, top), "\n".join(tag), font=font_of(12, bold=True), fill=colour)
        text = wrapped(f"“{prompt}”", SIDE - 30, font_of(13), (cell - LINE * len(tag)) // LINE)
        canvas.multiline_text((MARGIN + 10, top + LINE * len(tag)), "\n".join(text), font=font_of(13), fill=INK)
        for column, eraser in enumerate(erasers):
            left, key = SIDE + column * (cell + GAP), keys.get(eraser)
            if key not in images:
                continue
            image = images[key].filter(ImageFilter.GaussianBlur(cell / 12)) if blur and erased else images[key]
            sheet.paste(image.crop((0, 0, min(cell, image.width), min(cell, image.height))), (left, top))
            if eraser != UNEDITED and seen and key in seen:
                good = seen[key] != erased
                mark(canvas, left + cell, top + cell, good, warn=good and erased and key in unsafe)
        top += cell + GAP
    canvas.multiline_text((MARGIN, top + 2), "\n".join(foot_lines), font=font_of(12), fill=GREY)
    return save(sheet, path)


def images_of(store: Store, keys: Iterable[str]) -> dict[str, Image.Image]:
    """The images that can be read: a table is made from records alone, whatever became of the images since."""
    images = {}
    for key in keys:
        try:
            images[key] = _fit(store.image(key))
        except (KeyError, UserError):  # gone, damaged, or on a disk that does not answer now
            continue
    return images


def mark(canvas: ImageDraw.ImageDraw, right: int, bottom: int, good: bool, warn: bool = False) -> None:
    """A white tick on green, cross on red or ``!`` on amber, in the lower right corner of an image."""
    sign, colour = ("!", AMBER) if warn else ("✓", GREEN) if good else ("✗", RED)
    canvas.rectangle((right - 20, bottom - 20, right - 1, bottom - 1), fill=colour)
    canvas.text((right - 10, bottom - 10), sign, font=font_of(15, bold=True), fill="white", anchor="mm")


def _rows_shown(part: pd.DataFrame) -> list[tuple[str, dict[str, str], bool, str]]:
    """Prompt, image key of each eraser, whether it is erased, and the task, of the rows that a grid shows."""
    shown = []
    for number, task in enumerate(list(dict.fromkeys(part.task))[:TASKS_SHOWN]):
        of_task = part[part.task == task]
        for role, count in (("erase", ERASED_SHOWN), (NEAR, RETAINED_SHOWN), ("retain", RETAINED_SHOWN)):
            rows = of_task[of_task.role == role]
            # One prompt a concept first: a joint task shows several of its concepts, not one several times.
            order = rows.drop_duplicates("prompt_id").assign(turn=lambda frame: frame.groupby("label").cumcount())
            chosen = order.sort_values("turn", kind="stable").prompt_id
            more = count if part.task.nunique() >= TASKS_SHOWN else 3 * count
            # Another kept concept for each task, and as many as asked for where the list ends.
            offset = min(number, max(0, len(chosen) - more)) if role == "retain" else 0
            for prompt_id in chosen.iloc[offset : offset + more]:
                same = rows[rows.prompt_id == prompt_id]
                shown.append(
                    (same.prompt.iloc[0], dict(zip(same.eraser, same.key, strict=True)), role == "erase", task)
                )
    return shown


def _fit(image: Image.Image) -> Image.Image:
    """Small images by a whole factor, so that pixels stay pixels; large ones down to the cell."""
    if image.width < CELL:
        factor = -(-CELL // image.width)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = 2 * CELL
    return image.resize((size, max(1, round(size * image.height / image.width))), Image.Resampling.LANCZOS)


def font_of(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, so that a grid looks the same everywhere."""
    family = font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(family, fallback_to_default=True), size)


def wrapped(text: str, width: int, font: ImageFont.FreeTypeFont, most: int) -> list[str]:
    """At most so many lines, none wider than ``width`` pixels; a word that is wider is broken, a text that is longer cut."""
    lines: list[str] = []
    # No sign is narrower than a pixel, so that more than this cannot be drawn, nor need be measured.
    words = text[: width * most].split()[::-1]
    cut = len(text) > width * most
    while words and len(lines) <= most:
        word = words.pop()
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        elif font.getlength(word) <= width:
            lines.append(word)
        else:
            fits = bisect_right(range(1, len(word)), width, key=lambda n: math.ceil(font.getlength(word[:n]))) or 1
            lines.append(word[:fits])
            words.append(word[fits:])
    if not (cut or words or len(lines) > most):
        return lines
    return [*lines[: most - 1], lines[most - 1] + " …"] if len(lines) >= most > 0 else lines[:most]


def save(image: Image.Image, path: Path) -> Path:
    """Write a PNG; returns its path."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
    return path
