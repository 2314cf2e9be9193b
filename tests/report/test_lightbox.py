"""Pictures enlarged, columns picked and texts copied in a real browser."""

from __future__ import annotations

from pathlib import Path

import chromium
import pytest
from chromium import Chromium
from report_helpers import make_run
from table_helpers import PLUGINS, quiet

from erasebench.report.write import write_report

pytestmark = pytest.mark.skipif(chromium.FOUND is None, reason="no Chromium here")

BOX = "document.querySelector('dialog.lightbox')"
OPEN = f"{BOX}?.open && {BOX}.querySelectorAll('.large img').length === 3"
TITLE = f"{BOX}.querySelector('h2').textContent"
PLACE = f"{BOX}.querySelector('.bar p').textContent"
BLURRED = f"[...{BOX}.querySelectorAll('.large img')].every(i => getComputedStyle(i).filter.includes('blur'))"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    store = make_run(tmp_path_factory.mktemp("results"))
    return write_report(["one"], str(store.root), full=True, console=quiet(), plugins=PLUGINS)


def enlarge(browser: Chromium, report: Path, fragment: str) -> None:
    """Open the image browser and press its first picture with the keyboard."""
    browser.open(report / "images.html", fragment)
    browser.wait("document.querySelectorAll('.row button.picture').length > 0")
    browser.run("document.querySelector('.row button.picture').focus()")
    browser.press("Enter")
    browser.wait(OPEN)


def test_a_picture_is_enlarged_and_the_keys_walk_through_all_rows(browser: Chromium, report: Path) -> None:
    enlarge(browser, report, "kind=object")
    titles = browser.run("[...document.querySelectorAll('.row h2')].slice(0, 2).map(h => h.textContent)")
    assert browser.run(TITLE) == titles[0] and browser.run(PLACE) == "1 of 40"
    assert browser.run(f"[...{BOX}.querySelectorAll('.eraser')].map(e => e.textContent)") == ["unedited", "cure", "uce"]
    browser.press("ArrowRight")
    browser.wait(f"{PLACE} === '2 of 40'")
    assert browser.run(TITLE) == titles[1]
    browser.press("End")
    browser.wait(f"{PLACE} === '40 of 40'")
    browser.press("ArrowRight")
    assert browser.run(PLACE) == "40 of 40"
    browser.press("ArrowLeft")
    browser.wait(f"{PLACE} === '39 of 40'")
    browser.press("Escape")
    browser.wait(f"!{BOX}.open")
    assert browser.run("document.activeElement.matches('.row button.picture')"), "and the reader is where they were"
    assert "row=" not in browser.run("location.hash")


def test_the_whole_image_is_shown_large(browser: Chromium, report: Path) -> None:
    enlarge(browser, report, "kind=object")
    source = browser.run(f"{BOX}.querySelector('.large img').getAttribute('src')")
    assert source.startswith("full/") and (report / source).is_file()
    wide = f"{BOX}.querySelector('.large img').getBoundingClientRect().width"
    assert browser.run(wide) > 2 * 128


def test_the_address_of_an_enlarged_row_opens_it_again(browser: Chromium, report: Path) -> None:
    enlarge(browser, report, "kind=object&order=plan")
    browser.press("ArrowRight")
    browser.wait(f"{PLACE} === '2 of 40'")
    title, link = browser.run(TITLE), browser.run("location.hash")
    assert browser.run(f"{BOX}.querySelector('[data-copy^=file]').dataset.copy") == browser.run("location.href")
    browser.open(report / "images.html", link[1:])
    browser.wait(OPEN)
    assert browser.run(TITLE) == title


def test_unsafe_images_are_blurred_in_the_lightbox_too_until_asked_for(browser: Chromium, report: Path) -> None:
    enlarge(browser, report, "kind=unsafe")
    sources = f"[...{BOX}.querySelectorAll('.large img')].map(i => i.getAttribute('src').split('/')[0])"
    assert browser.run(BLURRED) and set(browser.run(sources)) == {"thumbs"}, "nor is a whole one loaded"
    browser.press("ArrowRight")
    browser.wait(f"{PLACE}.startsWith('2 of') && {OPEN}")
    assert browser.run(BLURRED)
    browser.run(f"{BOX}.querySelector('[data-reveal]').click()")
    browser.wait(f"!({BLURRED})")
    assert set(browser.run(sources)) == {"full"}
    assert browser.run(f"{BOX}.querySelector('[data-reveal]').getAttribute('aria-pressed')") == "true"


def test_pictures_of_other_pages_are_enlarged(browser: Chromium, report: Path) -> None:
    browser.open(report / "index.html")
    browser.run("document.querySelector('.telling button.picture').click()")
    browser.wait(f"{BOX}?.open && {BOX}.querySelectorAll('.large img').length === 2")
    assert "church" in browser.run(f"{BOX}.querySelector('.what').textContent")
    assert browser.run(f"{BOX}.querySelector('.large .copy').dataset.copy").startswith("erasebench show ")
    page = next(report.glob("unsafe-concept-*.html"))
    browser.open(page)
    browser.run("document.querySelector('button.picture').click()")
    browser.wait(OPEN)
    assert browser.run(BLURRED)


def test_a_command_is_copied(browser: Chromium, report: Path) -> None:
    browser.open(report / "provenance.html")
    browser.send("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.run("document.querySelector('[data-copy]').click()")
    browser.wait("document.querySelector('[data-copy]').textContent === 'Copied'")
    assert browser.run("navigator.clipboard.readText()") == browser.run(
        "document.querySelector('.command code').textContent"
    )


def test_columns_are_picked_and_the_key_ones_stand_at_first(browser: Chromium, report: Path) -> None:
    browser.open(report / "object.html")
    shown = (
        "[...document.querySelectorAll('#pooled thead th')].filter(th => !th.hidden).map(th => th.textContent.trim())"
    )
    before = browser.run(shown)
    every = browser.run("document.querySelectorAll('#pooled thead th').length")
    assert before[0] == "eraser" and 1 < len(before) < every
    assert browser.run("document.querySelector('#pooled .columns summary').textContent") == (
        f"Columns: {len(before) - 1} of {every - 1}"
    )
    cells = "[...document.querySelectorAll('#pooled tbody tr')].map(tr => [...tr.cells].filter(c => !c.hidden).length)"
    assert set(browser.run(cells)) == {len(before)}
    browser.run("document.querySelector('#pooled .columns input:checked').click()")
    assert len(browser.run(shown)) == len(before) - 1
    browser.run("document.querySelector('#pooled .columns button').click()")
    assert len(browser.run(shown)) == every and set(browser.run(cells)) == {every}


def test_without_scripts_all_columns_and_pictures_are_there(report: Path) -> None:
    """What scripts hide or make to be pressed stands in the page itself."""
    text = (report / "object.html").read_text(encoding="utf-8")
    assert "data-more" in text and " hidden>" not in text.replace('class="hidden"', "")
    assert '<span class="picture"><img' in next(report.glob("object-concept-*.html")).read_text(encoding="utf-8")
