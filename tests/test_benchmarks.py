"""The speed benchmark: its command runs every case in every way, both ways agree, and its numbers are measured."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from benchmarks import IDS
from benchmarks.cases import cases, made_up_names, names_needed, read_names
from benchmarks.measure import Session
from benchmarks.report import about_machine, aims, put_into, readme_block, write
from benchmarks.report import rows as table_rows
from benchmarks.trained_full_size import COLUMNS, ROWS, Row, measured
from benchmarks.trained_full_size import write as write_trained

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ("ours_s", "ours_median_s", "text_s", "solve_s", "apply_s", "plain_s", "plain_over_ours")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "tests" / "benchmarks" / "closed_form.py"
    # Its own pytest is not one of the processes of this one: pytest-benchmark measures nothing in those.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return subprocess.run(
        [sys.executable, str(script), "--threads", "1", *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT, env=own,
    )  # fmt: skip


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "closed_form.csv").open(encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def trial(tmp_path_factory) -> Path:
    """The tables of a trial of the whole suite, in float64."""
    folder = tmp_path_factory.mktemp("trial")
    done = command("--quick", "--double", "--rounds", "1", "--out", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_case_is_measured_in_both_ways(trial):
    table = rows(trial)
    assert tuple(table) == IDS
    for row in table.values():
        assert all(float(row[key]) > 0 for key in MEASURED), row
        parts = sum(float(row[key]) for key in ("text_s", "solve_s", "apply_s"))
        assert 0.5 * float(row["ours_s"]) < parts <= float(row["ours_s"])
        assert float(row["plain_over_ours"]) == pytest.approx(float(row["plain_s"]) / float(row["ours_s"]))
    assert {id for id in IDS if table[id]["released_order_s"] != "not run"} == {"uce2023_1", "uce2023_5"}
    floors = json.loads((trial / "closed_form.json").read_text())["floors_s"]
    assert len(floors) == 5 and all(seconds > 0 for seconds in floors.values())


def test_both_ways_make_the_same_weights(trial):
    for row in rows(trial).values():
        assert float(row["largest_change"]) > 1e-3, "an empty edit would prove nothing"
        assert float(row["largest_difference"]) < 1e-10, row["case"]
        assert float(row["difference_of_change"]) < 1e-8, row["case"]
        if row["released_order_s"] != "not run":
            assert float(row["released_order_difference"]) < 1e-8, row["case"]


def test_tables_name_every_case_and_say_that_they_are_a_trial(trial):
    text = (trial / "closed_form.md").read_text(encoding="utf-8")
    assert all(text.count(f"| {row['case']} |") == 2 for row in rows(trial).values())
    assert "these are no measurements" in text
    assert "## Aims" not in text


def test_tables_hold_no_name_or_folder_of_the_machine(trial):
    for path in trial.iterdir():
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text and str(trial) not in text and os.path.expanduser("~") + os.sep not in text
        assert len(socket.gethostname()) < 4 or socket.gethostname() not in text


def test_what_was_not_run_has_no_number(tiny_random_pipe, tmp_path):
    made = cases(made_up_names(names_needed(20)), 20)
    session = Session(tiny_random_pipe, made)
    session.records["uce2025_1"] = {"ours": {"seconds": 2.0, "median": 3.0, "text": 1.0, "solve": 0.5, "apply": 0.25}}
    about = {"date": "", "trial": False, "numbers": "float32", "names": "made up", "threads": 1, **about_machine()}
    write(tmp_path, list(made.values()), session, about)
    table = rows(tmp_path)
    one = table.pop("uce2025_1")
    assert (one["ours_s"], one["solve_s"], one["plain_s"], one["plain_over_ours"]) == (
        "2.0",
        "0.5",
        "not run",
        "not run",
    )
    for row in table.values():
        assert {value for key, value in row.items() if key not in ("id", "case")} == {"not run"}
    everything = json.loads((tmp_path / "closed_form.json").read_text(encoding="utf-8"))
    assert everything["aims"] and all(aim["reached"] is None and aim["met"] is None for aim in everything["aims"])


def test_aims_compare_with_the_floors_and_the_other_way():
    made = cases(made_up_names(names_needed()))
    ours = {"seconds": 2.0, "median": 2.0, "text": 1.0, "solve": 0.5, "apply": 0.25, "floor": 0.5}
    records = {"uce2025_10_100": {"ours": ours, "plain": {"seconds": 40.0}}}
    table = table_rows(list(made.values()), records)
    reached = {aim["what"]: aim for aim in aims(list(made.values()), table)}
    label = made["uce2025_10_100"].label
    assert (reached[f"{label}: times faster than the plain way, same run"]["reached"]) == 20
    assert reached[f"{label}: times faster than the plain way, same run"]["met"] is True
    floors = reached[f"{label}: solve and apply, in floors of the factored update"]
    assert (floors["reached"], floors["met"]) == (1.5, True)
    quoted = reached[f"{label}: times faster than released code, measured elsewhere"]
    assert quoted["reached"] == made["uce2025_10_100"].elsewhere[0] / 2.0 and quoted["met"] is False


def test_the_table_of_the_readme_stands_between_its_marks(tmp_path):
    made = cases(made_up_names(names_needed()))
    ours = {"seconds": 0.25, "median": 2.0, "text": 0.125, "solve": 0.5, "apply": 0.25}
    table = table_rows(list(made.values()), {"uce2025_1": {"ours": ours, "plain": {"seconds": 1.0}}})
    block = readme_block(table, {"processor": "A", "threads": 2, "date": "today"})
    assert "| UCE 2025, 1 concept | 0.25 | 0.125 | 1 | 4x |  |  |" in block
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- speed -->\nold\n<!-- /speed -->\nafter\n", encoding="utf-8")
    assert put_into(readme, block) and put_into(readme, block)
    assert readme.read_text(encoding="utf-8") == f"before\n<!-- speed -->\n{block}\n<!-- /speed -->\nafter\n"
    readme.write_text("no marks\n", encoding="utf-8")
    assert not put_into(readme, block)
    assert readme.read_text(encoding="utf-8") == "no marks\n"


def test_a_trial_needs_a_folder_of_its_own():
    done = command("--quick")
    assert done.returncode == 2
    assert "--out" in done.stderr


def test_the_benchmark_is_no_part_of_the_test_suite(request):
    patterns = request.config.getini("python_files")
    files = [path.name for path in (ROOT / "tests" / "benchmarks").glob("*.py")]
    assert "bench_closed_form.py" in files
    assert not any(fnmatch(name, pattern) for name in files for pattern in patterns)


def test_names_come_from_a_column_or_are_made_up(tmp_path):
    path = tmp_path / "names.csv"
    path.write_text("id,artist\n1,Ada Lin\n2, Bo Marsh \n3,ada lin\n4,\n", encoding="utf-8")
    assert [name.casefold() for name in read_names(path)] == ["ada lin", "bo marsh"]
    path.write_text("id,painter\n1,Ada Lin\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no column artist; it has id, painter"):
        read_names(path)
    names = made_up_names(names_needed())
    assert len({name.casefold() for name in names}) == names_needed()
    assert names == made_up_names(names_needed())
    assert all(len(name.split()) == 2 for name in names)


def test_full_size_cases_have_the_lengths_they_say():
    made = cases(made_up_names(names_needed()))
    assert tuple(made) == IDS
    lengths = {id: (len(case.task.targets), len(case.task.retain)) for id, case in made.items()}
    assert lengths["uce2025_10_100"] == (10, 100)
    assert lengths["uce2025_1000_700"] == (1000, 700)
    assert lengths["speed_100_1000"] == (100, 1000)
    assert len(made["cure_20_20"].task.targets[0].phrases) == 20 == len(made["cure_20_20"].task.retain)


# Trained erasers and guards, one step of each.


@pytest.mark.parametrize("name", ["unedited", "sld", "esd", "mace", "spm", "salun, adafactor"])
def test_a_row_of_the_trained_erasers_is_one_step_and_what_it_held(name):
    row = measured(ROWS[name], True, 512)
    assert row["seconds"] > 0 and row["pixels"] == 16
    trains = name not in ("unedited", "sld")
    assert row.get("steps") == (1 if trains else None)
    assert row["images"] == {"unedited": 1, "sld": 1, "esd": 0, "mace": 1, "spm": 0, "salun, adafactor": 2}[name]
    if trains:
        assert row["tensors"] > 0 and row["trained"] > 0 and row["edit_mib"] > 0
        assert 0 < row["estimate_gib"] < 0.1, "the small pipeline takes some megabytes"


def test_a_row_that_is_refused_says_why():
    row = measured(Row("esd", ("train=nothing",)), True, 512)
    assert row["note"].startswith("refused: ") and "nothing is no group" in row["note"] and "seconds" not in row


def test_the_table_of_the_trained_erasers_has_every_row_and_says_what_was_not_run(tmp_path):
    write_trained(tmp_path, {"esd": {"seconds": 1.5, "trained": 1234, "load": 0.1}}, small=False)
    with (tmp_path / "trained_full_size.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(ROWS) and list(rows["esd"]) == list(COLUMNS)
    text = (tmp_path / "trained_full_size.md").read_text(encoding="utf-8")
    assert "this says nothing about erasing" in text
    assert "| esd | sd14 |  | 1.5 |" in text and "1,234" in text
    assert text.count("not run") == len(ROWS) - 1
    assert str(tmp_path) not in text and str(ROOT) not in text
