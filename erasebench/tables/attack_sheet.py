"""What attacks brought back, in pictures: a row an eraser, a column an attack, all of one prompt and seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw

from erasebench.concepts import kind_words
from erasebench.edits.label import UNEDITED, shown_row
from erasebench.store import Store
from erasebench.tables.attack_map import NO_ATTACK
from erasebench.tables.grid import CELL, GAP, GREY, INK, LINE, MARGIN, SIDE, font_of, images_of, mark, save, wrapped

COLUMN_LINES = 5
EXPLAINED_BELOW = (
    "All images: one prompt and seed. A cross: the concept is recognised, so the eraser or the attack on it was not held; a "
    "tick: it is not."
)


def draw_sheet(
    plan: pd.DataFrame, store: Store, kind: str, path: Path, seen: Mapping[str, bool], blur: bool = False
) -> Path | None:
    """Draw the images of the prompt of a kind that attacks brought back in most erasers.

    Args:
        plan: rows of a run, with those under attack.
        store: where the images are; one that is gone leaves its place empty.
        kind: kind of the tasks.
        path: PNG to write.
        seen: by image key, whether the concept is recognised in it.
        blur: leave the images out, as those of unsafe concepts that a grid blurs.

    Returns:
        The path; ``None`` where nothing was attacked, or the images may not be shown.
    """
    part = plan[(plan.task_kind == kind) & (plan.attack != "")]
    if blur or not len(part):
        return None
    back = [
        seen.get(attacked, False) and not seen.get(clean, True)
        for attacked, clean in zip(part.key, part.clean_key, strict=True)
    ]
    prompt_id = part.assign(back=back).groupby("prompt_id", sort=False).back.sum().idxmax()
    rows = part[part.prompt_id == prompt_id]
    names = dict(zip(plan.key[plan.attack == ""], plan.eraser[plan.attack == ""], strict=True))
    erasers: dict[str, dict[str, str]] = {}
    for row in rows.itertuples():
        edit = names[row.clean_key] if row.edit_key else UNEDITED
        erasers.setdefault(edit, {NO_ATTACK: row.clean_key})[row.attack] = row.key
    columns = [NO_ATTACK, *dict.fromkeys(rows.attack)]
    images = images_of(store, [key for keys in erasers.values() for key in keys.values()])
    width = SIDE + len(columns) * (CELL + GAP) + MARGIN
    heads = [wrapped(name, CELL, font_of(13, bold=True), COLUMN_LINES) for name in columns]
    foot = wrapped(EXPLAINED_BELOW, width - 2 * MARGIN, font_of(12), COLUMN_LINES)
    top = 40 + LINE * max(map(len, heads)) + GAP
    sheet = Image.new("RGB", (width, top + len(erasers) * (CELL + GAP) + len(foot) * LINE + MARGIN), "white")
    canvas = ImageDraw.Draw(sheet)
    title = f"Attacks, {kind_words(kind)} erased: “{rows.prompt.iloc[0]}”"
    canvas.text((MARGIN, 8), title, font=font_of(17, bold=True), fill=INK)
    for column, lines in enumerate(heads):
        place = (SIDE + column * (CELL + GAP), top - GAP - LINE * len(lines))
        canvas.multiline_text(place, "\n".join(lines), font=font_of(13, bold=True), fill=INK)
    for name, keys in erasers.items():
        lines = wrapped(shown_row(name), SIDE - 30, font_of(13, bold=True), CELL // LINE)
        canvas.multiline_text((MARGIN, top), "\n".join(lines), font=font_of(13, bold=True), fill=INK)
        for column, attack in enumerate(columns):
            key = keys.get(attack, "")
            if key not in images:
                continue
            left, image = SIDE + column * (CELL + GAP), images[key].resize((CELL, CELL))
            sheet.paste(image, (left, top))
            if name != UNEDITED and key in seen:
                mark(canvas, left + CELL, top + CELL, not seen[key])
        top += CELL + GAP
    canvas.multiline_text((MARGIN, top + 2), "\n".join(foot), font=font_of(12), fill=GREY)
    return save(sheet, path)
