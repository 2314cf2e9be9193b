"""The command: help, refusals and the topics of list."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

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


def test_on_windows_the_way_out_is_said_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.platform", "win32")
    for verb in ("run", "table", "tabel"):
        assert main([verb]) == 2
        said = capsys.readouterr().err
        assert "not on Windows itself; install WSL" in said and len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())
    assert main(["--help"]) == 0 and "erasebench run" in capsys.readouterr().out


def test_list_has_a_line_for_every_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for group in ("method", "metric", "model", "protocol", "task", "prompts"):
        for name in groups()[group]:
            line = next(line for line in shown.splitlines() if line.split()[:1] == [name])
            assert len(line.split()) > 3, f"{group}={name} says what it is"
    assert main(["list", "metrcs"]) == 2
    assert "Did you mean 'metrics'" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["erasebench", "ta"], {"table"}),
        (["erasebench", "run", "met"], {"method=", "metric="}),
        (["erasebench", "run", "method", "=", "uce20"], {"uce2023", "uce2025"}),
        (["erasebench", "prefetch", "model", "="], set(groups()["model"])),
        (["erasebench", "list", "era"], {"erasers"}),
        (["erasebench", "show", "x"], set()),
    ],
)
def test_a_shell_completes_commands_groups_and_options(
    words: list[str], completed: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "bash"]) == 0
    given = " ".join(f"'{word}'" for word in words)
    asked = f"COMP_WORDS=({given}); COMP_CWORD={len(words) - 1}; _erasebench; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", f"{capsys.readouterr().out}\n{asked}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == completed
