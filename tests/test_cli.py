"""The command: help, refusals and the topics of list."""

from __future__ import annotations

import pytest

from erasebench.cli import main
from erasebench.commands import VERBS
from erasebench.config.choices import groups


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in VERBS)


@pytest.mark.parametrize("command", VERBS)
def test_every_command_explains_itself_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main([command, "--help"])
    except SystemExit as stop:  # argparse's way
        status = stop.code
    shown = capsys.readouterr().out
    assert status == 0 and shown.count(f"erasebench {command}") >= 2, "the usage, and an example"


def test_a_misspelt_command_is_refused_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tabel"]) == 2
    assert "Did you mean 'table'" in capsys.readouterr().err


def test_list_has_a_line_for_every_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for group in ("method", "metric", "model", "protocol", "task", "prompts"):
        for name in groups()[group]:
            line = next(line for line in shown.splitlines() if line.split()[:1] == [name])
            assert len(line.split()) > 3, f"{group}={name} says what it is"
    assert main(["list", "metrcs"]) == 2
    assert "Did you mean 'metrics'" in capsys.readouterr().err
