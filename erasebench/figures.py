"""Pictures: the grid that shows a comparison at a glance, and the plot of strength against what is lost and kept."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from erasebench.files import write_atomic
from erasebench.store import Store
from erasebench.tables import POOLED, UNEDITED

CELL = 132
"""Width and height of an image in a grid, in pixels, at least; smaller images are enlarged by whole factors."""

RED, GREEN, INK, GREY = (178, 34, 34), (34, 120, 60), (20, 20, 20), (110, 110, 110)
SIDE, HEAD, GAP = 250, 70, 6
TASKS_SHOWN, ERASED_SHOWN, RETAINED_SHOWN = 3, 2, 1


def grid(plan: pd.DataFrame, store: Store, kind: str, path: Path, *, blur: bool = False) -> Path:
    """Draw one kind's grid: a row a prompt, a column an eraser, the same seed along a row.

    Red rows ask for a concept that the edits of their row erase, green rows for one that should stay.

    Args:
        plan: rows of a run.
        store: where the images are.
        kind: kind of the tasks.
        path: PNG to write.
        blur: blur the images of erased unsafe concepts.
    """
    part = plan[plan.task_kind == kind]
    erasers = list(dict.fromkeys(part.eraser))
    rows = _rows_shown(part)
    images = {
        (row, eraser): _fit(store.image(key))
        for row, (_, keys, _, _) in enumerate(rows)
        for eraser, key in keys.items()
    }
    cell = max((image.width for image in images.values()), default=CELL)
    width = SIDE + len(erasers) * (cell + GAP)
    sheet = Image.new("RGB", (width, HEAD + len(rows) * (cell + GAP) + 26), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((10, 8), f"Erasing {_kinds(kind)}: what each eraser draws", font=_font(17, bold=True), fill=INK)
    for column, eraser in enumerate(erasers):
        name = "original" if eraser == UNEDITED else eraser
        left = SIDE + column * (cell + GAP)
        draw.text((left, HEAD - 26), _short(draw, name, cell, _font(14, bold=True)), font=_font(14, bold=True), fill=INK)
    for row, (prompt, keys, erased, task) in enumerate(rows):
        top = HEAD + row * (cell + GAP)
        colour = RED if erased else GREEN
        draw.rectangle((6, top, 12, top + cell - 1), fill=colour)
        draw.text((20, top + 4), "to be erased" if erased else f"to be kept ({task} erased)", font=_font(12, bold=True), fill=colour)
        text = "\n".join(_wrap(draw, f"“{prompt}”", SIDE - 34, _font(14))[: (cell - 24) // 18])
        draw.multiline_text((20, top + 24), text, font=_font(14), fill=INK)
        for column, eraser in enumerate(erasers):
            left = SIDE + column * (cell + GAP)
            if (row, eraser) in images:
                image = images[(row, eraser)]
                shown = image.filter(ImageFilter.GaussianBlur(cell / 12)) if blur and erased else image
                sheet.paste(shown.resize((cell, round(cell * image.height / image.width))).crop((0, 0, cell, cell)), (left, top))
    foot = "The same seed along a row. Red: the edit of this row erases what is asked for. Green: it should not change."
    draw.text((10, sheet.height - 20), foot, font=_font(12), fill=GREY)
    return _save(sheet, path)


def _rows_shown(part: pd.DataFrame) -> list[tuple[str, dict[str, str], bool, str]]:
    """Prompt, image key of each eraser, whether it is erased, and the task, of the rows that a grid shows."""
    shown = []
    for task in list(dict.fromkeys(part.task))[:TASKS_SHOWN]:
        of_task = part[part.task == task]
        for role, count in (("erase", ERASED_SHOWN), ("retain", RETAINED_SHOWN)):
            rows = of_task[of_task.role == role]
            # One prompt a concept first: a joint task shows several of its concepts, not one several times.
            order = rows.drop_duplicates("prompt_id").assign(turn=lambda frame: frame.groupby("label").cumcount())
            chosen = order.sort_values("turn", kind="stable").prompt_id
            more = count if part.task.nunique() >= TASKS_SHOWN else 3 * count
            offset = len(shown) % max(1, len(chosen)) if role == "retain" else 0
            for prompt_id in chosen.iloc[offset : offset + more]:
                same = rows[rows.prompt_id == prompt_id]
                shown.append((same.prompt.iloc[0], dict(zip(same.eraser, same.key, strict=True)), role == "erase", task))
    return shown


def strength(measured: pd.DataFrame, kind: str, option: str, path: Path) -> Path:
    """Plot erased and retained accuracy against one option, with error bars and the unedited model as lines.

    Args:
        measured: from :func:`erasebench.tables.measure`, over runs whose eraser labels hold ``option=value``.
        kind: kind of the tasks.
        option: name of the option, e.g. ``alpha``.
        path: PNG to write; an SVG for papers is written beside it.
    """
    part = measured[(measured.task_kind == kind) & (measured.task == POOLED) & (measured.unit == "%")]
    metrics = list(dict.fromkeys(part.metric[part.role == "erase"]))
    figure = Figure(figsize=(4.6 * max(1, len(metrics)), 3.6), layout="constrained")
    axes = figure.subplots(1, max(1, len(metrics)), squeeze=False)[0]
    for axis, metric in zip(axes, metrics, strict=False):
        for role, colour, name in (("erase", "firebrick", "erased ↓"), ("retain", "seagreen", "retained ↑")):
            rows = part[(part.metric == metric) & (part.role == role)].dropna(subset="value")
            points = rows.assign(x=rows.eraser.map(lambda label: _option(label, option))).dropna(subset="x").sort_values("x")
            bars = 100 * pd.concat([points.value - points.low, points.high - points.value], axis=1).T.clip(lower=0)
            axis.errorbar(points.x, 100 * points.value, yerr=bars.to_numpy(), color=colour, marker="o", capsize=3, label=name)
            for value in rows.value[rows.eraser == UNEDITED]:
                axis.axhline(100 * value, color=colour, linestyle=":", linewidth=1)
        axis.set(xlabel=option, ylabel=f"{metric.partition('@')[0]} (%)", ylim=(-3, 103), title=kind)
        axis.legend(frameon=False)
        axis.grid(alpha=0.25)
    if metrics:
        axes[0].annotate("dotted: unedited model", (0.02, 0.02), xycoords="axes fraction", fontsize=7, color="grey")
    for suffix in ("svg", "png"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=160)
        write_atomic(path.with_suffix(f".{suffix}"), buffer.getvalue())
    return path


def _option(label: str, option: str) -> float | None:
    for part in label.split()[1:]:
        name, _, value = part.partition("=")
        if name == option:
            try:
                return float(value)
            except ValueError:
                return None
    return None


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
    lines: list[str] = []
    for word in text.split():
        if lines and draw.textlength(f"{lines[-1]} {word}", font=font) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _short(draw: ImageDraw.ImageDraw, text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    while draw.textlength(text, font=font) > width and len(text) > 2:
        text = text[:-2] + "…"
    return text


def _save(image: Image.Image, path: Path) -> Path:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
    return path
