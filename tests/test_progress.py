"""Progress says how far it is and how long it takes, in a log file as in a terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from erasebench import progress as progress_module
from erasebench.errors import printable
from erasebench.progress import duration, progress, say


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_every_ten_seconds_and_one_at_the_end(clock):
    out = io.StringIO()
    with progress("generating", 1200, console=Console(file=out)) as advance:
        for _ in range(12):
            clock[0] += 4
            advance(100)
    assert out.getvalue().splitlines() == [
        "generating: 300 of 1,200 images (25 %), about 36 s left",
        "generating: 600 of 1,200 images (50 %), about 24 s left",
        "generating: 900 of 1,200 images (75 %), about 12 s left",
        "generating: 1,200 of 1,200 images (100 %), took 48 s, 25 a second",
    ]


def test_a_bar_in_a_terminal_and_nothing_for_nothing():
    out = io.StringIO()
    with progress("scoring [church]", 3, console=Console(file=out, force_terminal=True, width=100)) as advance:
        advance(3)
    assert "scoring [church]" in out.getvalue()
    assert "3/3" in out.getvalue()
    silent = io.StringIO()
    with progress("scoring", 0, console=Console(file=silent)) as advance:
        advance(0)
    assert silent.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5300, "88 min"), (7500, "2 h 05 min")]
)
def test_lengths_of_time_as_people_say_them(seconds, text):
    assert duration(seconds) == text


NAMES = [
    "[red]tench[/red]",
    "[/]",
    "[/x]",
    "[bold",
    "\\[a]",
    "a\x1b[31mb",
    "\u202eabc",
    "x" * 200 + " y",
    "café\u00a0au lait",
    "[@click=x]y[/]",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_sentence_is_printed_as_it_stands(name: str) -> None:
    for terminal in (False, True):
        console = Console(file=io.StringIO(), width=40, force_terminal=terminal, color_system="standard")
        say(console, f"measured {name}.", f"warning {name}", "yellow")
        text = re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())
        assert text == f"warning {printable(name)} measured {printable(name)}.\n"
    assert "\x1b" not in printable(name) and "\u202e" not in printable(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("terminal", [False, True])
def test_progress_of_what_has_any_name_is_shown(name: str, terminal: bool) -> None:
    console = Console(file=io.StringIO(), width=300, force_terminal=terminal)
    with progress(name, 1, console=console) as advance:
        advance(1)
    assert printable(name).split()[0][:40] in console.file.getvalue()


def test_an_error_is_printed_as_it_stands(capfd: pytest.CaptureFixture[str]) -> None:
    from erasebench.cli import main

    assert main(["show", "[/] \x1b[31m[red]x[/red]", "--store", "nowhere"]) == 2
    assert r"[/] \x1b[31m[red]x[/red]: no image" in capfd.readouterr().err
