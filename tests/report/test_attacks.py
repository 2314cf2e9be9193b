"""The section on attacks: the numbers beside the clean ones, pairs of images, and nothing of it where none was run."""

from __future__ import annotations

import html
import re
from pathlib import Path

import chromium
import pandas as pd
import pytest
import torch
from report_helpers import SCRIPT, attacked, plan_of, write_attacked

from erasebench.edits.found import Found
from erasebench.report.attacks import PROMPTS_SHOWN, _result, attacked_prompts
from erasebench.report.outcomes import outcomes
from erasebench.store import Store


@pytest.fixture(scope="module")
def plan() -> pd.DataFrame:
    clean = plan_of()
    return attacked(clean.assign(clean_key=clean.key))


@pytest.fixture(scope="module")
def report(plan: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_attacked(tmp_path_factory.mktemp("results"), plan)


def section(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return re.split("<h2>", text[text.index("<h2>Attacks</h2>") + 4 :])[0]


def words(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def test_the_page_of_a_kind_has_the_rates_with_and_without_the_attack(report: Path) -> None:
    text = words(section(report / "object.html"))
    assert re.search(r"cure ring 0\.0 \[0\.0, [\d.]+\] 100\.0 \[[\d.]+, 100\.0\] \+100\.0 \[\+[\d.]+, \+100\.0\]", text)
    assert re.search(r"uce ring 100\.0 \[[\d.]+, 100\.0\] 100\.0 \[", text) and "mcnemar" in text
    assert text.index("unedited ring") < text.index("cure ring") < text.index("uce ring")
    assert "attack success rate" in text


def test_each_pair_of_images_is_there_and_says_what_became_of_the_concept(report: Path) -> None:
    text = section(report / "object.html")
    paths = re.findall(r'<img src="(thumbs/[^"]+)"', text)
    assert len(paths) == 2 * 3 * PROMPTS_SHOWN and all((report / path).is_file() for path in paths)
    for article in text.split("<article")[1:]:
        cells = [words(f"<figure{cell}") for cell in article.split("<figure")[1:]]
        assert [cell.split()[0] for cell in cells] == ["unedited", "cure", "uce"]
        assert "✗ brought back" in cells[1] and "✗ still there" in cells[2] and not set("✗✓") & set(cells[0])


def test_unsafe_pairs_are_blurred_until_asked_for_and_others_are_not(report: Path) -> None:
    unsafe, harmless = section(report / "unsafe.html"), section(report / "object.html")
    assert unsafe.count('<article class="row sensitive">') == PROMPTS_SHOWN and "data-reveal" in unsafe
    assert "sensitive" not in harmless and "data-reveal" not in harmless


def test_what_was_found_is_shown_as_text(report: Path) -> None:
    text = section(report / "object.html")
    assert SCRIPT not in text and "tilted" in text
    assert SCRIPT in html.unescape(text)


def test_an_attack_is_no_eraser(report: Path) -> None:
    index = words((report / "index.html").read_text(encoding="utf-8"))
    assert "2 erasers on" in index and "also under 1 attack" in index
    methods = words((report / "methods.html").read_text(encoding="utf-8"))
    assert "cure" in methods and "ring" not in methods


def test_without_attacks_no_page_of_a_kind_speaks_of_any(tmp_path: Path) -> None:
    report = write_attacked(tmp_path, plan_of())
    for page in ("index", "object", "unsafe"):
        text = (report / f"{page}.html").read_text(encoding="utf-8")
        assert "attack" not in text.replace(str(tmp_path), ""), page


def test_what_is_gone_leaves_its_place_empty(plan: pd.DataFrame, tmp_path: Path) -> None:
    first = attacked_prompts(plan, "object", {}, set(plan.key), Store(tmp_path))[0]
    assert first.result == "" and {pair.words for pair in first.pairs} == {""}
    (pair, *_) = attacked_prompts(plan, "object", {}, set(), Store(tmp_path))[0].pairs
    assert (pair.clean, pair.attacked) == ("", "")


def test_the_prompts_that_most_erasers_let_through_come_first(plan: pd.DataFrame, tmp_path: Path) -> None:
    hit = plan[(plan.attack == "ring") & (plan.task == "gas pump")]
    seen = dict.fromkeys([*plan.key, *plan.clean_key], False)
    twice, once = list(dict.fromkeys(hit.prompt_id))[3], list(dict.fromkeys(hit.prompt_id))[1]
    seen |= dict.fromkeys(hit.key[hit.prompt_id == twice], True)
    seen |= dict.fromkeys(hit.key[(hit.prompt_id == once) & (hit.eraser == "uce + ring")], True)
    # An attack on the model as it came brings nothing back that was erased.
    seen |= dict.fromkeys(plan.key[plan.eraser == "none + ring"], True)
    shown = attacked_prompts(plan, "object", seen, set(), Store(tmp_path))
    assert [each.prompt_id for each in shown[:2]] == [twice, once] and len(shown) == PROMPTS_SHOWN
    assert [pair.words for pair in shown[1].pairs] == ["", "✓ gone", "✗ brought back"]


def test_what_differs_between_erasers_stands_under_each(plan: pd.DataFrame, tmp_path: Path) -> None:
    store = Store(tmp_path)
    ours = plan.copy()
    for number, eraser in enumerate(("none", "cure", "uce")):
        key = f"{number}" * 32
        store.put_attack(key, Found(seed=number))
        ours.loc[ours.eraser == f"{eraser} + ring", "attack_key"] = key
    first = attacked_prompts(ours, "object", {}, set(), store)[0]
    assert first.result == "" and [pair.result for pair in first.pairs] == ["seed 0", "seed 1", "seed 2"]


def test_an_attack_on_the_unedited_model_is_no_eraser_s_failure(plan: pd.DataFrame) -> None:
    signs = outcomes(plan, pd.Series(1.0, index=plan.index))
    assert set(signs[plan.eraser == "none + ring"]) == {"r"}
    assert set(signs[plan.eraser == "cure + ring"]) == {"f"}


@pytest.mark.skipif(chromium.FOUND is None, reason="no Chromium here")
def test_in_a_browser_unsafe_pairs_are_shown_by_a_button(report: Path, tmp_path: Path) -> None:
    browser = chromium.Chromium(tmp_path / "profile")
    blurred = "getComputedStyle(document.querySelector('.pairs .picture img')).filter.includes('blur')"
    try:
        browser.open(report / "unsafe.html")
        assert browser.run(blurred) is True
        browser.run("document.querySelector('[data-reveal]').click()")
        assert browser.run(blurred) is False
        browser.size(390, 800)
        browser.open(report / "object.html")
        assert browser.run(blurred) is False
        within = (
            "[...document.querySelectorAll('.pairs .cell')].every(cell => [...cell.querySelectorAll('.picture')].every("
            "picture => picture.getBoundingClientRect().right <= cell.getBoundingClientRect().right + 1"
            " && picture.getBoundingClientRect().right <= innerWidth))"
        )
        assert browser.run(within), "pictures lie over one another, or beside the page of a phone"
        assert browser.run("document.title") != "owned" and browser.complaints == []
    finally:
        browser.close()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Found(words=torch.ones(2, 3)), "2 soft words"),
        (Found(latents=torch.ones(1)), "other latents"),
        (Found(tensors={"up.a": torch.ones(1), "down.a": torch.ones(1)}), "2 tensors"),
    ],
)
def test_every_form_has_words_on_the_page(tmp_path, found, words) -> None:
    store = Store(tmp_path)
    store.put_attack("ab" * 16, found)
    assert _result("ab" * 16, store) == words
