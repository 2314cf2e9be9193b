"""Every start of a run is kept: the second does not hide the machine and the versions of the first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from erasebench.runs.manifest import STARTED_WITH, note_start, read_starts
from erasebench.runs.names import STARTS_FILE


def start(number: int) -> dict:
    return {
        "started": f"2026-01-{number:02d}",
        "device": "cpu",
        "command": ["erasebench run"],
        "metrics": {},
        "packages": {},
    }


def test_starts_are_read_in_order_with_all_that_is_kept_of_them(tmp_path: Path) -> None:
    assert read_starts(tmp_path) == []
    for number in (1, 2):
        note_start(tmp_path, start(number) | {"commit": None})
    first, second = read_starts(tmp_path)
    assert (first["started"], second["started"]) == ("2026-01-01", "2026-01-02")
    assert set(first) <= set(STARTED_WITH) and first["commit"] is None


def test_processes_that_begin_together_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: note_start(tmp_path, start(number)), range(40)))
    assert sorted(each["started"] for each in read_starts(tmp_path)) == [
        f"2026-01-{number:02d}" for number in range(40)
    ]


def test_a_line_that_was_cut_off_or_is_no_start_hides_no_other(tmp_path: Path) -> None:
    note_start(tmp_path, start(1))
    with (tmp_path / STARTS_FILE).open("ab") as file:
        file.write(b'{"started": 3}\n[]\n\xff\n{"started": "2026-\n')
    note_start(tmp_path, start(2))
    assert [each["started"] for each in read_starts(tmp_path)] == ["2026-01-01", "2026-01-02"]
