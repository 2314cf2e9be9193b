"""Make the pictures of docs/report.md anew from a report: small screenshots, taken by headless Chromium.

python docs/screenshots.py REPORT      (a folder that erasebench report has written, with a kind object)
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from chromium import Chromium  # noqa: E402 (it lies among the tests)

TALL, WIDE, PHONE = (960, 1150), (960, 760), (390, 844)
SHOTS = {
    "index": ("index.html", "", TALL, "light", ""),
    "numbers": ("index.html", "", WIDE, "light", "document.querySelector('.kind').scrollIntoView()"),
    "kind": ("object.html", "", WIDE, "light", ""),
    "images": ("images.html", "kind=object", WIDE, "light", ""),
    "enlarged": ("images.html", "kind=object", WIDE, "light", "document.querySelector('button.picture').click()"),
    "phone": ("index.html", "", PHONE, "light", "document.querySelector('.kind').scrollIntoView()"),
    "dark": ("index.html", "", TALL, "dark", ""),
}
"""Of each picture the page, what is chosen on it, the window, the colours, and what is done before it is taken."""

COLOURS = (128, 96, 64, 48, 32, 24, 16, 12)
"""The first number of colours with which a picture is small enough is taken."""

MOST_BYTES = 60_000


def shoot(browser: Chromium, report: Path, name: str) -> bytes:
    """One picture as PNG with few colours."""
    page, chosen, size, scheme, done = SHOTS[name]
    browser.size(*size)
    browser.media(scheme=scheme)
    browser.open(report / page, chosen)
    if page == "images.html":
        browser.wait("document.querySelectorAll('.row').length > 0")
    if done:
        browser.run(f"void {done}")
    browser.wait(
        "[...document.images].filter(i => i.getBoundingClientRect().top < innerHeight).every(i => i.complete && i.naturalWidth)"
    )
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.png"
        browser.screenshot(whole)
        with Image.open(whole) as image:
            sizes = [_png(image.convert("RGB"), colours) for colours in COLOURS]
    return next(data for data in sizes if len(data) <= MOST_BYTES)


def _png(image: Image.Image, colours: int) -> bytes:
    buffer = io.BytesIO()
    image.quantize(colours, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main(report: Path) -> None:
    """Take them all."""
    with tempfile.TemporaryDirectory() as profile:
        browser = Chromium(Path(profile))
        try:
            for name in SHOTS:
                (HERE / "screenshots" / f"{name}.png").write_bytes(shoot(browser, report, name))
        finally:
            browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
