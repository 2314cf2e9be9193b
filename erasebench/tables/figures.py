"""Pictures: the grid that shows a comparison at a glance, and the plot of strength against what is lost and kept."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from erasebench.files import write_atomic
from erasebench.store import Store
from erasebench.tables.measure import POOLED, UNEDITED

CELL = 128
"""Width and height of an image in a grid, in pixels, at least; smaller images are enlarged by whole factors."""

RED, GREEN, INK, GREY = (178, 34, 34), (34, 120, 60), (20, 20, 20), (110, 110, 110)
SIDE, GAP, MARGIN, LINE = 240, 6, 10, 18
TASKS_SHOWN, ERASED_SHOWN, RETAINED_SHOWN = 3, 2, 1
FOOT = (
    "Along a row: the same prompt and the same seed. Red: the edit of that row erases what the prompt asks for, so it "
    "should be gone. Green: the prompt asks for something else, which should still be there."
)


def grid(
    plan: pd.DataFrame,
    store: Store,
    kind: str,
    path: Path,
    *,
    blur: bool = False,
    seen: Mapping[str, bool] | None = None,
    seen_by: str = "",
) -> Path:
    """Draw one kind's grid: a row a prompt, a column an eraser, the same seed along a row.

    Red rows ask for a concept that the edits of their row erase, green rows for one that should stay.

    Args:
        plan: rows of a run.
        store: where the images are; one that is gone leaves its place empty.
        kind: kind of the tasks.
        path: PNG to write.
        blur: blur the images of erased unsafe concepts.
        seen: by image key, whether a classifier sees in it what its prompt asks for; images of the erasers then get a
            tick (gone in a red row, still there in a green one) or a cross.
        seen_by: the classifier's name.
    """
    part = plan[plan.task_kind == kind]
    erasers = list(dict.fromkeys(part.eraser))
    rows = _rows_shown(part)
    images = _images(store, [key for _, keys, _, _ in rows for key in keys.values()])
    cell = max((image.width for image in images.values()), default=CELL)
    width = max(SIDE + len(erasers) * (cell + GAP), 520) + MARGIN
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    heads = ["original" if eraser == UNEDITED else eraser for eraser in erasers]
    head_lines = [_wrap(draw, head, cell, _font(13, bold=True)) for head in heads]
    foot = FOOT + (f" ✓ ✗: whether the {seen_by} agrees." if seen else "")
    foot_lines = _wrap(draw, foot, width - 2 * MARGIN, _font(12))
    top = 40 + LINE * max((len(lines) for lines in head_lines), default=1) + GAP
    sheet = Image.new("RGB", (width, top + len(rows) * (cell + GAP) + len(foot_lines) * LINE + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 8), f"Erasing {_kinds(kind)}", font=_font(17, bold=True), fill=INK)
    for column, lines in enumerate(head_lines):
        place = (SIDE + column * (cell + GAP), top - GAP - LINE * len(lines))
        draw.multiline_text(place, "\n".join(lines), font=_font(13, bold=True), fill=INK)
    for prompt, keys, erased, task in rows:
        colour = RED if erased else GREEN
        draw.rectangle((MARGIN - 4, top, MARGIN + 2, top + cell - 1), fill=colour)
        tag = _wrap(
            draw, f"erased: {task}" if erased else f"kept, with {task} erased", SIDE - 30, _font(12, bold=True)
        )[:2]
        draw.multiline_text((MARGIN + 10, top), "\n".join(tag), font=_font(12, bold=True), fill=colour)
        text = _wrap(draw, f"“{prompt}”", SIDE - 30, _font(13))
        room = (cell - LINE * len(tag)) // LINE
        if len(text) > room:
            text = [*text[: room - 1], text[room - 1] + " …"]
        draw.multiline_text((MARGIN + 10, top + LINE * len(tag)), "\n".join(text), font=_font(13), fill=INK)
        for column, eraser in enumerate(erasers):
            left, key = SIDE + column * (cell + GAP), keys.get(eraser)
            if key not in images:
                continue
            image = images[key].filter(ImageFilter.GaussianBlur(cell / 12)) if blur and erased else images[key]
            sheet.paste(image.crop((0, 0, min(cell, image.width), min(cell, image.height))), (left, top))
            if eraser != UNEDITED and seen and key in seen:
                _mark(draw, left + cell, top + cell, seen[key] != erased)
        top += cell + GAP
    draw.multiline_text((MARGIN, top + 2), "\n".join(foot_lines), font=_font(12), fill=GREY)
    return _save(sheet, path)


def _images(store: Store, keys: Iterable[str]) -> dict[str, Image.Image]:
    """The images that are there: tables are made from records alone, and images may have been deleted since."""
    found = {}
    for key in keys:
        try:
            found[key] = _fit(store.image(key))
        except KeyError:
            continue
    return found


def _mark(draw: ImageDraw.ImageDraw, right: int, bottom: int, good: bool) -> None:
    """A white tick on green or cross on red, in the lower right corner of an image."""
    draw.rectangle((right - 20, bottom - 20, right - 1, bottom - 1), fill=GREEN if good else RED)
    draw.text((right - 10, bottom - 10), "✓" if good else "✗", font=_font(15, bold=True), fill="white", anchor="mm")


def _rows_shown(part: pd.DataFrame) -> list[tuple[str, dict[str, str], bool, str]]:
    """Prompt, image key of each eraser, whether it is erased, and the task, of the rows that a grid shows."""
    shown = []
    for number, task in enumerate(list(dict.fromkeys(part.task))[:TASKS_SHOWN]):
        of_task = part[part.task == task]
        for role, count in (("erase", ERASED_SHOWN), ("retain", RETAINED_SHOWN)):
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


def strength(measured: pd.DataFrame, kind: str, option: str, path: Path) -> Path:
    """Plot erased and retained accuracy against one option, with error bars and the unedited model as dotted lines.

    Labels that differ in more than the option are lines of their own.

    Args:
        measured: from :func:`erasebench.tables.measure.measure`, over runs whose eraser labels hold ``option=value``.
        kind: kind of the tasks.
        option: name of the option, e.g. ``alpha``.
        path: PNG to write; an SVG for papers is written beside it.
    """
    figure = draw_strength(measured, kind, option)
    for suffix in ("svg", "png"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=160)
        write_atomic(path.with_suffix(f".{suffix}"), buffer.getvalue())
    return path


def draw_strength(measured: pd.DataFrame, kind: str, option: str) -> Figure:
    """The figure that :func:`strength` writes."""
    part = measured[(measured.task_kind == kind) & (measured.task == POOLED) & (measured.unit == "%")]
    metrics = list(dict.fromkeys(part.metric[part.role == "erase"]))
    figure = Figure(figsize=(4.6 * max(1, len(metrics)), 3.6), layout="constrained")
    axes = figure.subplots(1, max(1, len(metrics)), squeeze=False)[0]
    for axis, metric in zip(axes, metrics, strict=False):
        for role, colour, name in (("erase", "firebrick", "erased ↓"), ("retain", "seagreen", "retained ↑")):
            rows = part[(part.metric == metric) & (part.role == role)].dropna(subset="value")
            rows = rows.assign(x=rows.eraser.map(lambda label: _option(label, option)))
            lines = list(
                rows.dropna(subset="x").groupby(rows.eraser.map(lambda label: _without(label, option)), sort=False)
            )
            for (other, points), marker in zip(lines, itertools.cycle("os^vD"), strict=False):
                points = points.sort_values("x")
                bars = 100 * pd.concat([points.value - points.low, points.high - points.value], axis=1).T.clip(lower=0)
                axis.errorbar(
                    points.x, 100 * points.value, yerr=bars.to_numpy(), color=colour, marker=marker, capsize=3,
                    label=f"{name} {other}" if len(lines) > 1 else name,
                )  # fmt: skip
            for value in rows.value[rows.eraser == UNEDITED]:
                axis.axhline(100 * value, color=colour, linestyle=":", linewidth=1)
        values = part.eraser.map(lambda label: _option(label, option)).dropna()
        if len(values) and values.min() > 0 and values.max() >= 20 * values.min():
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set(xlabel=option, ylabel=f"{metric.partition('@')[0]} (%)", ylim=(-3, 103), title=kind)
        axis.legend(frameon=False)
        axis.grid(alpha=0.25)
    if metrics:
        axes[0].annotate("dotted: unedited model", (0.02, 0.02), xycoords="axes fraction", fontsize=7, color="grey")
    return figure


def _option(label: str, option: str) -> float | None:
    for part in label.split()[1:]:
        name, _, value = part.partition("=")
        if name == option:
            try:
                return float(value)
            except ValueError:
                return None
    return None


def _without(label: str, option: str) -> str:
    """The rest of a label: points with the same rest are one line."""
    return " ".join(part for part in label.split() if part.partition("=")[0] != option)


def _kinds(kind: str) -> str:
    return {"unsafe": "unsafe content", "celebrity": "celebrities"}.get(kind, f"{kind}s")


def _fit(image: Image.Image) -> Image.Image:
    """Small images by a whole factor, so that pixels stay pixels; large ones down to the cell."""
    if image.width < CELL:
        factor = -(-CELL // image.width)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = 2 * CELL
    return image.resize((size, max(1, round(size * image.height / image.width))), Image.Resampling.LANCZOS)


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, so that a grid looks the same everywhere."""
    family = font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(family, fallback_to_default=True), size)


def _wrap(draw: ImageDraw.ImageDraw, text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Lines no wider than ``width``; a word that is wider is broken."""
    lines: list[str] = []
    for word in text.split():
        if lines and draw.textlength(f"{lines[-1]} {word}", font=font) <= width:
            lines[-1] += f" {word}"
            continue
        while draw.textlength(word, font=font) > width and len(word) > 1:
            fits = next(
                n for n in range(len(word) - 1, 0, -1) if n == 1 or draw.textlength(word[:n], font=font) <= width
            )
            lines.append(word[:fits])
            word = word[fits:]
        lines.append(word)
    return lines


def _save(image: Image.Image, path: Path) -> Path:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
    return path
