"""axe-core finds nothing on any kind of page, light or dark, wide or narrow: what it can check, people can use."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
from chromium import Chromium
from omegaconf import OmegaConf
from report_helpers import attacked, finish, plan_of, write_attacked
from table_helpers import PLUGINS, quiet

from erasebench.config.compose import compose
from erasebench.report.write import write_report
from erasebench.store import Store

PACKAGES = ("axe_playwright_python", "axe_core_python")
"""Packages that hold axe-core, the newer first; neither needs to be imported."""


def axe() -> Path | None:
    """The file of axe-core, if a package that has it is installed."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            if (path := Path(folder) / "axe.min.js").is_file():
                return path
    return None


pytestmark = [
    pytest.mark.skipif(chromium.FOUND is None, reason="no Chromium here"),
    pytest.mark.skipif(axe() is None, reason="axe-core is not installed: pip install axe-core-python"),
]

PAGES = (
    "index.html", "object.html", "unsafe.html", "object-gas-pump.html", "object-concept-tench.html", "images.html",
    "methods.html", "method-cure.html", "provenance.html", "published.html",
)  # fmt: skip
LOOKS = {"light": (1280, "light"), "dark": (1280, "dark"), "phone": (390, "light")}
RUN = (
    "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map("
    "v => `${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map(n => n.html.slice(0, 160)).join(' | ')}`))"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """With an attack, and beside a paper's numbers: all that a page may have."""
    config = OmegaConf.to_container(compose(["experiment=cure_objects"]))
    clean = plan_of()
    return write_attacked(
        tmp_path_factory.mktemp("results"), attacked(clean.assign(clean_key=clean.key)), config=config
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Chromium]:
    running = Chromium(tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


def faults(browser: Chromium) -> list[str]:
    path = axe()
    assert path is not None
    browser.run(path.read_text(encoding="utf-8") + "; 0")
    return browser.run(RUN)


def look(browser: Chromium, name: str) -> None:
    width, scheme = LOOKS[name]
    browser.size(width, 900)
    browser.media(scheme=scheme)


@pytest.mark.parametrize("name", LOOKS)
def test_no_kind_of_page_has_a_fault(name: str, browser: Chromium, report: Path) -> None:
    look(browser, name)
    for page in PAGES:
        browser.open(report / page)
        browser.run("document.querySelectorAll('details').forEach(each => each.open = true)")
        if page == "images.html":
            browser.wait("document.querySelectorAll('.row').length > 0")
        assert faults(browser) == [], page


@pytest.mark.parametrize("name", LOOKS)
def test_an_enlarged_picture_has_none(name: str, browser: Chromium, report: Path) -> None:
    look(browser, name)
    browser.open(report / "images.html", "kind=unsafe")
    browser.wait("document.querySelectorAll('button.picture').length > 0")
    browser.run("document.querySelector('button.picture').click()")
    browser.wait("document.querySelector('dialog[open] .large img')")
    assert faults(browser) == []


def test_an_unfinished_run_has_none(browser: Chromium, tmp_path: Path) -> None:
    store = Store(tmp_path)
    finish(store, "half", plan_of(), scored=False)
    browser.open(write_report(["half"], str(store.root), console=quiet(), plugins=PLUGINS) / "index.html")
    assert faults(browser) == []


def test_a_fault_is_seen(browser: Chromium, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        "<!doctype html><title>t</title><img src='data:,'><p style='color: #eee'>pale</p>"
    )
    browser.open(tmp_path / "page.html")
    assert {text.partition(":")[0] for text in faults(browser)} >= {"image-alt", "color-contrast", "html-has-lang"}
