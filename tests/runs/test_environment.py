"""What a run says of the code that made it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from erasebench.runs.environment import commit


def repository(folder: Path) -> None:
    """Everything in a folder, committed."""
    for command in (
        ["init", "-q"],
        ["add", "-A", "-f"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)


def test_the_commit_is_that_of_our_checkout_and_of_no_repository_around_it(tmp_path: Path) -> None:
    checkout, theirs = tmp_path / "checkout", tmp_path / "theirs"
    installed = theirs / ".venv" / "lib" / "site-packages"
    for folder in (checkout, installed):
        (folder / "erasebench").mkdir(parents=True)
        (folder / "erasebench" / "__init__.py").write_text("")
    assert commit(checkout / "erasebench") is None, "no repository"
    repository(checkout)
    repository(theirs)
    head = commit(checkout / "erasebench")
    assert head and len(head) == 12
    (checkout / "erasebench" / "__init__.py").write_text("1")
    assert commit(checkout / "erasebench") == f"{head}+changes"
    assert commit(installed / "erasebench") is None
