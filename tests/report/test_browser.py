"""The report in a real browser, opened from a disk: no complaint, sorting, filtering, blurring, keys, phone, print."""

from __future__ import annotations

from pathlib import Path

import chromium
import pytest
from chromium import Chromium
from report_helpers import QUOTES, SCRIPT, TASK, make_run
from table_helpers import PLUGINS, quiet

from erasebench.report.write import write_report

pytestmark = pytest.mark.skipif(chromium.FOUND is None, reason="no Chromium here")

SHOWN = "document.querySelectorAll('.row').length"
READY = "document.getElementById('status').textContent.includes('rows')"
ROWS = "[...document.querySelectorAll('#pooled tbody tr')].map(row => row.cells[0].textContent)"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    store = make_run(tmp_path_factory.mktemp("results"))
    return write_report(["one"], str(store.root), full=True, console=quiet(), plugins=PLUGINS)


def choose(browser: Chromium, name: str, value: str) -> None:
    browser.run(
        f"(() => {{ const form = document.getElementById('filters'); form.{name}.value = {value!r};"
        f" form.{name}.dispatchEvent(new Event('change', {{bubbles: true}})); }})()"
    )


def test_every_page_opens_without_a_complaint_and_is_not_taken_over(browser: Chromium, report: Path) -> None:
    for page in sorted(report.glob("*.html")):
        browser.open(page)
        assert browser.run("document.title") != "owned"
        assert browser.complaints == [], page.name


def test_a_table_is_sorted_by_its_heads_best_first(browser: Chromium, report: Path) -> None:
    browser.open(report / "object.html")
    assert browser.run(ROWS) == ["unedited", "cure", "uce"]
    head = "[...document.querySelectorAll('#pooled thead th')].find(th => th.textContent.startsWith('recognised by classifier % erased'))"
    for order, erasers in (("ascending", ["cure", "uce"]), ("descending", ["uce", "cure"])):
        browser.run(f"{head}.querySelector('button').click()")
        assert browser.run(f"{head}.getAttribute('aria-sort')") == order
        assert browser.run(ROWS) == ["unedited", *erasers], "the unedited model stays on top"
    browser.run(
        f"{head.replace('recognised by classifier % erased', 'recognised by classifier % kept')}.querySelector('button').click()"
    )
    assert browser.run("document.querySelectorAll('#pooled [aria-sort]').length") == 1


def test_a_table_is_sorted_from_the_keyboard(browser: Chromium, report: Path) -> None:
    browser.open(report / "object.html")
    browser.run("document.querySelector('#pooled .scroll').focus()")
    browser.press("Tab")
    assert browser.run("document.activeElement.matches('button.sort')")
    browser.press("Enter")
    assert browser.run("document.querySelector('#pooled th').getAttribute('aria-sort')") == "ascending"
    browser.press("Enter")
    assert browser.run(ROWS) == ["unedited", "uce", "cure"]


def test_images_are_filtered_by_what_is_asked(browser: Chromium, report: Path) -> None:
    browser.open(report / "images.html")
    browser.wait(f"{READY} && {SHOWN} > 0")
    every = browser.run("parseInt(document.getElementById('status').textContent)")
    assert every == 2 * 5 * 4 + 4 * 4
    assert browser.run("document.querySelector('.row .mark-f').textContent") == "✗ still there"
    choose(browser, "outcome", "fl")
    browser.wait("document.getElementById('status').textContent.startsWith('12 of')")
    choose(browser, "eraser", "cure")
    browser.wait(f"document.getElementById('status').textContent.startsWith('0 of') && {SHOWN} === 0")
    assert "Clear the filters" in browser.run("document.getElementById('rows').textContent")
    choose(browser, "eraser", "")
    choose(browser, "kind", "unsafe")
    browser.wait("document.getElementById('status').textContent.startsWith('4 of')")
    assert browser.run("[...document.getElementById('filters').task.options].map(o => o.value)") == ["", TASK]
    assert "kind=unsafe" in browser.run("location.hash")
    browser.run("document.querySelector('#filters [type=reset]').click()")
    browser.wait(f"document.getElementById('status').textContent === '{every} rows'")
    choose(browser, "role", "g")
    browser.wait("document.getElementById('status').textContent.startsWith('8 of')")


def test_images_are_found_by_words_of_their_prompt(browser: Chromium, report: Path) -> None:
    browser.open(report / "images.html")
    browser.wait(READY)
    browser.run("document.getElementById('filters').text.focus()")
    for letter in "owned":
        browser.press(letter)
    browser.wait("document.getElementById('status').textContent.includes(' of ')")
    prompts = set(browser.run("[...document.querySelectorAll('.row h2')].map(h => h.textContent)"))
    assert prompts == {f"“{SCRIPT}”", f"“{QUOTES}”"}
    assert browser.run("document.title") != "owned"


def test_a_link_with_a_filter_opens_filtered(browser: Chromium, report: Path) -> None:
    browser.open(report / "object-gas-pump.html")
    link = browser.run("[...document.links].map(a => a.href).find(href => href.includes('images.html#'))")
    browser.open(report / "images.html", link.partition("#")[2])
    browser.wait("document.getElementById('status').textContent.startsWith('20 of')")


def test_images_and_keys_are_there(browser: Chromium, report: Path) -> None:
    browser.open(report / "images.html", "kind=object")
    browser.wait(
        f"{READY} && [...document.images].slice(0, 3).every(image => image.complete && image.naturalWidth > 0)"
    )
    cell = "document.querySelectorAll('.cell')[1]"
    key = browser.run(f"{cell}.querySelector('summary').title").removeprefix("key ")
    assert browser.run(f"{cell}.querySelector('details code').textContent").startswith(
        f"erasebench show {key} --store "
    )
    assert browser.run("document.images[0].loading") == "lazy" and browser.run("document.images[0].alt")


@pytest.mark.parametrize("media", ["screen", "print"])
def test_unsafe_images_are_blurred_until_asked_for(media: str, browser: Chromium, report: Path) -> None:
    browser.open(report / "images.html", "kind=unsafe")
    browser.wait(f"{READY} && {SHOWN} === 16")
    browser.media(media)
    blurred = "[...document.querySelectorAll('.row img')].every(i => getComputedStyle(i).filter.includes('blur'))"
    clear = "[...document.querySelectorAll('.row img')].every(i => getComputedStyle(i).filter === 'none')"
    assert browser.run(f"document.querySelectorAll('.row img').length === 48 && {blurred}")
    browser.media()
    browser.run("document.querySelector('[data-reveal]').focus()")
    browser.press("Enter")
    browser.wait(clear)
    assert browser.run("document.querySelector('[data-reveal]').getAttribute('aria-pressed')") == "true"
    browser.press("Enter")
    browser.wait(blurred)
    browser.open(report / "images.html", "kind=object")
    browser.wait(f"{READY} && {SHOWN} > 0")
    assert browser.run(clear), "images of other kinds are not blurred"


def test_a_phone_scrolls_down_and_not_sideways(browser: Chromium, report: Path) -> None:
    browser.size(400, 800)
    for page in sorted(report.glob("*.html")):
        browser.open(page)
        if page.name == "images.html":
            browser.wait(f"{READY} && {SHOWN} > 0")
        assert browser.run("document.documentElement.scrollWidth") <= 400, page.name
    browser.open(report / "object.html")
    assert browser.run("(box => box.scrollWidth > box.clientWidth)(document.querySelector('#pooled .scroll'))")


def test_pages_follow_light_and_dark(browser: Chromium, report: Path) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        browser.media(scheme=scheme)
        browser.open(report / "object.html")
        colours[scheme] = browser.run("getComputedStyle(document.body).backgroundColor")
        assert browser.run("getComputedStyle(document.querySelector('svg text')).fill") == browser.run(
            "getComputedStyle(document.body).color"
        ), "figures have the page's ink"
    assert colours["light"] != colours["dark"]


def test_what_is_pressed_is_not_printed_and_what_is_read_is(browser: Chromium, report: Path) -> None:
    browser.open(report / "object.html")
    browser.media("print")
    shown = "(what => getComputedStyle(document.querySelector(what)).display !== 'none')"
    assert browser.run(f"{shown}('#pooled th button')"), "heads are buttons, and must not vanish"
    assert not browser.run(f"{shown}('header nav')")
    assert browser.run("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"


def test_tables_are_read_without_scripts_and_printed(browser: Chromium, report: Path, tmp_path: Path) -> None:
    browser.scripts(False)
    try:
        browser.open(report / "object.html")
        browser.pdf(tmp_path / "page.pdf")
    finally:
        browser.scripts(True)
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF") and (tmp_path / "page.pdf").stat().st_size > 20_000


def test_what_is_printed_has_its_pictures_however_far_down_they_stand(browser: Chromium, report: Path) -> None:
    browser.size(1280, 200)
    for page in ("index.html", "object-concept-tench.html"):
        browser.open(report / page)
        assert browser.run("[...document.images].at(-1).getBoundingClientRect().top > 400")
        browser.wait("document.images.length > 5 && [...document.images].every(i => i.complete && i.naturalWidth > 0)")
