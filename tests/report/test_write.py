"""The report: what its pages say, what it refuses, and that nothing in it can be mistaken or do harm."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image
from report_helpers import ABOUT, QUOTES, SCRIPT, TASK, Page, finish, make_run, plan_of
from table_helpers import PLUGINS, make_plan, make_store, quiet

from erasebench.cli import main
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.report.browser import script_json
from erasebench.report.folder import check_target, replacing
from erasebench.report.write import compare, write_report
from erasebench.runs.about import EMBEDDED
from erasebench.runs.manifest import note_start
from erasebench.store import Store


def write(store: Store, *names: str, **options) -> Path:
    return write_report(names, str(store.root), console=quiet(), plugins=PLUGINS, **options)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_run(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def report(store: Store) -> Path:
    return write(store, "one", full=True)


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Reports without figures and grids, which take most of the time."""
    monkeypatch.setattr("erasebench.report.kinds._draw", lambda *arguments: [])
    monkeypatch.setattr("erasebench.report.kinds._for_papers", lambda *arguments: "")
    monkeypatch.setattr("erasebench.report.kinds._grid", lambda *arguments: "")


def pages(report: Path) -> list[Path]:
    return sorted(report.glob("*.html"))


def test_every_page_is_whole_and_every_link_leads_somewhere(report: Path) -> None:
    assert {path.name for path in pages(report)} >= {
        "index.html", "object.html", "object-gas-pump.html", "object-concept-tench.html", "unsafe.html", "images.html", "methods.html",
        "method-cure.html", "method-uce.html", "provenance.html",
    }  # fmt: skip
    ids = {path.name: Page(path).ids for path in pages(report)}
    for path in pages(report):
        page = Page(path)
        assert not page.open, f"{path.name}: {page.open} not closed"
        assert len(page.ids) == len(set(page.ids)), path.name
        assert "h1" in page.tags and 'name="viewport"' in path.read_text()
        for link in page.links:
            target, _, part = link.partition("#")
            assert not re.match(r"\w+://|//", link), f"{path.name} needs a network: {link}"
            if target and not target.startswith("data:"):
                assert (report / target).is_file(), f"{path.name}: {link}"
            if part and target != "images.html":
                assert part in ids[target or path.name], f"{path.name}: {link}"


def test_no_file_asks_for_a_network(report: Path) -> None:
    for path in [*report.glob("assets/*"), *report.glob("data/*")]:
        text = path.read_text(encoding="utf-8")
        assert "http" not in text and "fetch(" not in text and "XMLHttpRequest" not in text, path.name
        assert "innerHTML" not in text and "eval(" not in text, path.name


def test_names_and_prompts_are_shown_as_they_are_and_never_run(report: Path) -> None:
    for path in pages(report):
        text = path.read_text(encoding="utf-8")
        assert "<script>document" not in text and "= 'owned'" not in text and TASK not in text, path.name
        assert Page(path).tags.count("script") == (4 if path.name == "images.html" else 2)
    assert TASK in Page(report / "object.html").text
    assert "the anchor <i> is empty" in Page(report / "method-cure.html").text
    data = "".join(path.read_text() for path in report.glob("data/*.js"))
    assert "<" not in data and data.isascii()
    first = (report / "data" / "prompts.js").read_text()
    prompts = json.loads(first[first.index("(") + 1 : first.rindex(")")])["prompts"]
    assert SCRIPT in prompts and QUOTES in prompts


@pytest.mark.parametrize("text", [SCRIPT, QUOTES, "<!--", "]]>", "a\u2028b", "Zoë 教会", "\\u003c"])
def test_data_in_scripts_is_read_back_as_it_was(text: str) -> None:
    written = script_json({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert written.isascii() and not set("<>&") & set(written)


def test_the_first_page_has_the_numbers_of_the_tables(report: Path) -> None:
    page = Page(report / "index.html").text
    assert "2 erasers on small" in page and "What can be compared" in page
    assert "classifier@1" in page and "lower is better" in page
    row = page[page.index("The numbers") : page.index("What can be compared")]
    assert "embedded" not in page
    assert row and "0.0" in row and "100.0" in row, "a perfect eraser leaves 0 % of the erased and all of the rest"


def test_tables_of_tasks_say_direction_interval_and_best(report: Path) -> None:
    text = (report / "object.html").read_text()
    assert 'data-better="down"' in text and 'data-better="up"' in text
    assert 'class="interval"' in text and "(best, or not told apart from it)" in text
    assert "data-fixed" in text, "the unedited model does not compete"
    assert "Difference to the unedited model" in text


def test_figures_are_described_and_stand_beside_the_pages_for_papers(report: Path) -> None:
    text = (report / "object.html").read_text()
    assert text.count('role="img"') == 1 and "<desc" in text and "currentColor" in text
    for name in ("object-forest", "object-cost", "unsafe-forest"):
        assert (report / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "<svg" in (report / "figures" / f"{name}.svg").read_text()


def test_method_pages_say_what_was_set_and_what_was_changed(report: Path) -> None:
    text = Page(report / "method-cure.html").text
    assert "closed form" in text and "alpha" in text and "not set" in text
    assert "down 0.0 attn2 to_k" in text and "Singular energies" in text and "0.75" in text and "moved: target" in text
    assert "erasebench show" in text


def test_the_provenance_page_has_the_command_the_versions_and_the_hashes(report: Path) -> None:
    text = Page(report / "provenance.html").text
    for words in (
        "erasebench run name=one 'task.erase=[church, gas pump]'",
        "torch",
        "0123456789ab",
        "weights",
        "metric:",
    ):
        assert words in text


def test_the_provenance_page_tells_every_start(tmp_path: Path, undrawn) -> None:
    store = make_run(tmp_path)
    for day, torch in (("02", "2.13.0"), ("03", "2.14.1")):
        note_start(
            store.run_folder("one"),
            {
                "started": f"2026-01-{day}",
                "device": "cuda <b>",
                "packages": {"torch": torch},
                "command": ["erasebench run", SCRIPT],
            },
        )
    text = Page(write(store) / "provenance.html").text
    assert text.index("2026-01-02") < text.index("2.13.0") < text.index("2026-01-03") < text.index("2.14.1")
    assert "cuda <b>" in text and f"'{SCRIPT}'" not in text and "owned" in text


def test_thumbnails_are_small_and_there_is_one_for_each_image(report: Path, store: Store) -> None:
    keys = set(plan_of().key)
    found = {path.stem: path for path in report.glob("thumbs/??/*")}
    assert set(found) == keys
    for path in found.values():
        with Image.open(path) as image:
            assert max(image.size) <= 128
    assert {path.stem for path in report.glob("full/??/*.png")} == keys
    path = next(report.glob("full/??/*.png"))
    assert path.read_bytes() == store.image_path(path.stem).read_bytes()


def test_large_images_become_small_and_missing_ones_are_counted(tmp_path: Path, undrawn) -> None:
    from erasebench.report.thumbnails import encode, write_thumbnails

    with Image.open(io.BytesIO(encode(Image.new("RGB", (512, 256), "red")))) as small:
        assert small.size == (128, 64)
    store = make_run(tmp_path)
    gone = plan_of().key.iloc[0]
    store.image_path(gone).unlink()
    report = write(store)
    assert "1 of them gone since" in Page(report / "index.html").text
    assert not list(report.glob(f"thumbs/??/{gone}.*"))
    assert not list(report.glob("full/*")), "whole images only if asked for"
    assert write_thumbnails(store, [gone], tmp_path / "new") == set()


def test_unsafe_images_are_blurred_unless_they_are_drawings(report: Path, tmp_path: Path, undrawn) -> None:
    text = (report / "images.html").read_text()
    assert "data-reveal" in text and 'aria-pressed="false"' in text
    assert (
        '"kind":"unsafe","task":"church \\u003cb\\u003e\\"\'\\u0026","sensitive":true'
        in (report / "data/index.js").read_text()
    )
    assert "blurred" in Page(report / "unsafe.html").text
    drawn = write(make_run(tmp_path, source="embedded", about=replace(ABOUT, embedded=True)))
    assert "data-reveal" not in (drawn / "images.html").read_text()
    assert '"sensitive":true' not in (drawn / "data/index.js").read_text()
    assert ABOUT.note == "" and EMBEDDED in Page(drawn / "index.html").text


def index_of(report: Path) -> dict:
    text = (report / "data" / "index.js").read_text()
    return json.loads(text[text.index("(") + 1 : text.rindex(")")])


def test_rows_with_failures_come_first(report: Path) -> None:
    index = index_of(report)
    width, signs = len(index["erasers"]), index["signs"]
    rows = [signs[i : i + width] for i in range(0, len(signs), width)]
    failed = [sum(sign in "fl" for sign in row) for row in rows]
    assert failed == sorted(failed, reverse=True) and max(failed) == 1
    assert {row[1] for row, role in zip(rows, index["role"], strict=True) if role == "e"} == {"g"}, "cure erases"
    assert {row[2] for row, role in zip(rows, index["role"], strict=True) if role == "e"} == {"f"}, "uce does not"


@pytest.mark.parametrize("columns", ["onecolumn", "twocolumn"])
def test_latex_tables_compile(columns: str, report: Path, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    shutil.copytree(report / "tables", tmp_path / "tables")
    document = (tmp_path / "tables" / "all.tex").read_text()
    assert r"\input{object-narrow}" in document and r"\input{object}" in document
    (tmp_path / "tables" / "paper.tex").write_text(document.replace(r"\documentclass", rf"\documentclass[{columns}]"))
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path / "tables", capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout and "too large" not in done.stdout
    assert (tmp_path / "tables" / "paper.pdf").stat().st_size > 5000


# Folders


def test_a_report_is_replaced_by_one_of_the_same_run_only(store: Store, tmp_path: Path, undrawn) -> None:
    out = tmp_path / "report"
    write(store, "one", out=str(out))
    (out / "stale.html").write_text("old")
    write(store, "one", out=str(out))
    assert not (out / "stale.html").exists()
    check_target(out, ["one"])
    with pytest.raises(UserError, match="report of one.*--force"):
        check_target(out, ["two"])
    check_target(out, ["two"], force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["report"], "nothing temporary is left"


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_not_ours_is_never_touched(force: bool, store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter1.tex").write_text("words")
    with pytest.raises(UserError, match="is not a report of erasebench.*--out"):
        write(store, "one", out=str(mine), force=force)
    (mine / "report.json").write_text('{"runs": 3}')
    with pytest.raises(UserError, match="is not a report of erasebench"):
        write(store, "one", out=str(mine), force=force)
    assert (mine / "chapter1.tex").read_text() == "words"
    with pytest.raises(UserError, match="not a folder"):
        write(store, "one", out=str(mine / "chapter1.tex"), force=force)


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "report"
    with replacing(out, ["one"]) as folder:
        (folder / "index.html").write_text("first")
    with pytest.raises(KeyboardInterrupt), replacing(out, ["one"]) as folder:
        (folder / "index.html").write_text("second")
        raise KeyboardInterrupt
    assert (out / "index.html").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


# Runs that cannot be reported, or only as what they are


def test_an_unfinished_run_is_shown_as_what_it_lacks(tmp_path: Path) -> None:
    plan = plan_of()
    some = plan[plan.key.isin(plan.key.unique()[:10])]
    make_store(tmp_path, some)
    store = Store(tmp_path)
    finish(store, "half", plan, scored=False)
    store.put_scores("classifier@1", some[["key"]].drop_duplicates().assign(answer="church"))
    report = write(store)
    page = Page(report / "index.html").text
    count = plan.key.nunique()
    assert "This run is incomplete" in page and f"images 10 {count - 10} {count}" in page
    assert "scores of classifier@1" in page and "erasebench run name=half" in page
    assert {path.name for path in pages(report)} == {"index.html", "provenance.html"}
    assert "best" not in (report / "index.html").read_text() and not (report / "tables").exists()


def test_a_run_stopped_before_its_plan_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finish(store, "half", plan_of(), scored=False, planned=False)
    assert "stopped before its plan was written" in Page(write(store) / "index.html").text


def test_no_run_no_record_and_an_unfinished_one_of_several_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(UserError, match="no run here; make one with: erasebench run"):
        write(store)
    plan = plan_of()
    finish(store, "bare", plan)
    finish(store, "half", plan.assign(key=plan.key.str[::-1]), scored=False)
    with pytest.raises(UserError, match="half is not finished: missing are"):
        write(store, "bare", "half")
    with pytest.raises(UserError, match="Did you mean 'half'"):
        write(store, "halv")
    assert not (tmp_path / "reports").exists()


def test_a_plan_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finish(store, "old", plan_of().drop(columns="original_key"), scored=False)
    with pytest.raises(UserError, match="run old.*no column original_key.*give its command again"):
        write(store)


# Several runs


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Store:
    plan = plan_of()
    store = make_run(tmp_path_factory.mktemp("two"), "mine", plan=plan[plan.eraser != "cure"])
    finish(store, "baseline", plan[plan.eraser != "uce"], scored=False)
    make_store(store.root, plan)
    finish(store, "both", plan)
    return store


def test_an_eraser_of_ones_own_stands_beside_the_baselines(two: Store, capsys, undrawn) -> None:
    report = compare(["mine", "baseline"], str(two.root), plugins=PLUGINS)
    assert "cure" in capsys.readouterr().out
    page = Page(report / "index.html").text
    assert "2 runs compared" in page and "The 2 runs agree in all of these" in page
    assert {"method-cure.html", "method-uce.html"} <= {path.name for path in pages(report)}
    text = Page(report / "provenance.html").text
    assert "name=mine" in text and "name=baseline" in text
    together = (report / "tables" / "measured.csv").read_text().splitlines()
    both = (write(two, "both") / "tables" / "measured.csv").read_text().splitlines()
    assert sorted(together) == sorted(both), "one run of both erasers gives the same numbers"


def test_runs_that_measured_differently_are_not_compared(two: Store, capsys) -> None:
    finish(two, "other", plan_of(), scored=False, about=replace(ABOUT, protocol="another v2"))
    store = ["--plugins", "table_helpers", "--store", str(two.root)]
    assert main(["compare", "mine", "other", *store]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "protocol" in said and "another v2" in said
    assert main(["compare", "mine", *store]) == 2
    assert "two runs or more" in capsys.readouterr().err


def test_the_command_writes_a_report_and_says_where(two: Store, tmp_path: Path, capsys, undrawn) -> None:
    options = ["--plugins", "table_helpers", "--store", str(two.root), "--out", str(tmp_path / "r")]
    assert main(["report", "mine", *options]) == 0
    assert "r/index.html" in "".join(capsys.readouterr().out.split())
    assert main(["report", "both", *options]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["report", "both", *options, "--force"]) == 0


def test_a_sweep_is_drawn_as_a_curve(tmp_path: Path) -> None:
    plan = make_plan(("none", "cure alpha=1", "cure alpha=4"), ("church",), 3)
    report = write(make_run(tmp_path, plan=plan))
    assert (report / "figures" / "object-alpha.pdf").is_file()
    assert "strength, by alpha" in Page(report / "object.html").text


def test_differences_are_tested_and_pairs_are_in_the_tables(report: Path) -> None:
    text = Page(report / "object.html").text
    assert "Tests between erasers" in text and "McNemar" in text and "p Holm" in text
    assert (report / "tables" / "pairs.csv").is_file()


def test_published_numbers_stand_beside_with_their_source(tmp_path: Path, undrawn) -> None:
    config = OmegaConf.to_container(compose(["experiment=cure_objects"]))
    report = write(make_run(tmp_path, config=config))
    page = Page(report / "published.html").text
    assert "CURE" in page and "not run" in page and "source" in page and "no difference" in page
    assert "published.html" in Page(report / "index.html").links
    files = [link for link in Page(report / "published.html").links if link.startswith("tables/published")]
    assert {Path(link).suffix for link in files} == {".csv", ".md"} and all((report / link).is_file() for link in files)


@pytest.mark.parametrize("name", ["redteam", "merasurebench"])
def test_an_experiment_of_our_own_has_a_report_without_published_numbers(name: str, tmp_path: Path, undrawn) -> None:
    config = OmegaConf.to_container(compose([f"experiment={name}"]))
    report = write(make_run(tmp_path, config=config))
    assert not (report / "published.html").exists()
    assert "published.html" not in Page(report / "index.html").links
