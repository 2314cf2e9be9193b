"""A report of thirty thousand images: its first pages stay small, and the rest waits in files of its own."""

from __future__ import annotations

from pathlib import Path

import chromium
import numpy as np
import pandas as pd
import pytest
from report_helpers import finish
from table_helpers import PLUGINS, quiet

from erasebench.report import thumbnails
from erasebench.report.write import write_report
from erasebench.store import Store

ERASERS = ("none", "cure", "uce")
PROMPTS = 10_000
MEGABYTE, TWO_MEGABYTES = 1_000_000, 2_000_000
THUMBNAIL = 4_000


def plan_of_many() -> pd.DataFrame:
    """Thirty thousand images of 10 000 prompts as long as those of COCO, for 20 concepts."""
    number = np.arange(PROMPTS)
    one = pd.DataFrame(
        {
            "prompt_id": [f"coco/{i:05d}" for i in number],
            "prompt": [
                f"A photo numbered {i} of a person who stands near a table with many things on it" for i in number
            ],
            "seed": number * 7919,
            "label": [f"concept {i % 20}" for i in number],
        }
    )
    one["role"] = np.where(one.label == "concept 0", "erase", "retain")
    parts = []
    for place, eraser in enumerate(ERASERS):
        keys = [f"{place:02d}{i:030x}" for i in number]
        parts.append(one.assign(eraser=eraser, key=keys, edit_key="" if eraser == "none" else f"{place:032x}"))
    plan = pd.concat(parts, ignore_index=True)
    originals = [f"{0:02d}{i:030x}" for i in number] * len(ERASERS)
    return plan.assign(task="concept 0", task_kind="object", kind="object", original_key=originals)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    def fake(store, keys, folder, *, before=None, full=False):
        keys = list(dict.fromkeys(keys))
        for key in keys:
            path = folder / thumbnails.FOLDER / key[:2] / f"{key}.webp"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"0" * THUMBNAIL)
        return set(keys)

    store = Store(tmp_path_factory.mktemp("results"))
    finish(store, "large", plan_of_many())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("erasebench.report.write.write_thumbnails", fake)
        patch.setattr("erasebench.report.kinds._draw", lambda *arguments: [])
        return write_report(["large"], str(store.root), console=quiet(), plugins=PLUGINS)


def size(*paths: Path) -> int:
    return sum(path.stat().st_size for path in paths)


def test_the_first_pages_are_small_and_rows_are_in_files_of_sixty(report: Path) -> None:
    assets = list(report.glob("assets/*"))
    assert size(report / "index.html", *assets) < MEGABYTE
    browser = size(report / "images.html", *assets, report / "data" / "index.js", report / "data" / "rows-0.js")
    assert browser + 60 * len(ERASERS) * THUMBNAIL < TWO_MEGABYTES
    assert all(path.stat().st_size < TWO_MEGABYTES for path in report.glob("*.html"))
    assert len(list(report.glob("data/rows-*.js"))) == -(-PROMPTS // 60)
    assert max(path.stat().st_size for path in report.glob("data/rows-*.js")) < 60_000
    assert len(list(report.glob("thumbs/??/*"))) == len(ERASERS) * PROMPTS


@pytest.mark.skipif(chromium.FOUND is None, reason="no Chromium here")
def test_a_browser_shows_and_filters_them(report: Path, tmp_path: Path) -> None:
    browser = chromium.Chromium(tmp_path / "profile")
    try:
        status = "document.getElementById('status').textContent"
        browser.open(report / "images.html")
        browser.wait(f"{status} === '10,000 rows'")
        assert browser.run("document.querySelectorAll('.row').length") == 60
        assert browser.run("document.querySelectorAll('script[src*=\"rows-\"]').length") == 1
        browser.run("document.querySelector('#pager [data-step=\"1\"]').click()")
        browser.wait("document.querySelector('#pager input').value === '2'")
        browser.run("document.getElementById('filters').text.value = 'numbered 9999'")
        browser.run("document.getElementById('filters').text.dispatchEvent(new Event('input', {bubbles: true}))")
        browser.wait(f"{status} === '1 of 10,000 rows'")
        assert [text for text in browser.complaints if "ERR_FILE" not in text] == []
    finally:
        browser.close()
