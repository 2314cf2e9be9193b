"""The trials of a search: several processes share them, a killed one is taken up, a live one is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from erasebench.errors import UserError

pytest.importorskip("optuna")

from erasebench.runs.trials import Trials  # noqa: E402

HOLD = """
import sys
from erasebench.runs.trials import Trials
with Trials(__import__("pathlib").Path(sys.argv[1]), "study").next(9) as trial:
    trial.suggest_float("method.alpha", 0.5, 20)
    print(trial.number, flush=True)
    sys.stdin.read()  # until it is killed, or nobody is there any more
"""


def test_a_live_trial_is_left_alone_and_a_killed_one_taken_up(tmp_path: Path) -> None:
    folder = tmp_path / "a?b=c#d %41"  # signs that mean something in the address of a database
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout.readline().strip() == "0", other.communicate()[1]
    trials = Trials(folder, "study")
    with trials.next(1) as none:
        assert none is None, "the one that is wanted is under way"
    with trials.next(2) as mine:
        assert mine.number == 1 and [trial.number for trial in trials.running] == [0, 1]
        lost = trials.running[0].params
        assert mine.suggest_float("method.alpha", 0.5, 20) != lost["method.alpha"], "nothing is tried twice"
        trials.study.tell(mine, 1.0)
    other.kill()
    other.communicate()
    with trials.next(2) as again:
        assert again.suggest_float("method.alpha", 0.5, 20) == lost["method.alpha"]
        trials.study.tell(again, 2.0)
    assert [trial.value for trial in trials.finished] == [1.0, 2.0] and not trials.running
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_several_that_begin_at_once_share_one_search(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from erasebench.runs.trials import Trials; Trials(Path(sys.argv[1]), 's')"
    begun = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in begun] == [(b"", 0)] * 3


def test_what_is_no_search_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "trials.sqlite").write_bytes(b"garbage " * 1000)
    with pytest.raises(UserError, match=r"trials.sqlite: cannot be read .*not a database.*move it away"):
        Trials(tmp_path, "study")
    with pytest.raises(UserError, match="cannot write to"):
        Trials(tmp_path / "trials.sqlite" / "x", "study")
