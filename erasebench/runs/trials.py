"""The trials of a search, kept in the store by Optuna, and shared by all processes that search for the same.

A process that works on a trial holds a lock of the operating system on the trial's file, which is free again when the
process ends, however it ends. So a trial that was killed is known at once, and one that is alive is left alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from erasebench.errors import UserError
from erasebench.files import disk_errors

WAIT_SECONDS = 600
"""For the database and its lock. The others hold them for milliseconds; on a busy machine the first one, which makes the
tables, takes a minute."""


class Trials:
    """The trials of one search.

    Args:
        folder: where they are kept, made if need be.
        name: of the search.

    Raises:
        UserError: the folder cannot be written to, or what is there cannot be read.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self.study = self._opened()

    def _opened(self) -> Any:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = (self.folder / "trials.sqlite").absolute()
        try:
            # We connect ourselves: in an address, signs of a path mean something else, and not the same in all versions.
            storage = optuna.storages.RDBStorage(
                "sqlite:///trials.sqlite",
                engine_kwargs={"creator": lambda: sqlite3.connect(path, WAIT_SECONDS, check_same_thread=False)},
            )
            return optuna.create_study(
                study_name=self.name,
                storage=storage,
                direction="maximize",
                load_if_exists=True,
            )
        except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
            why = str(error.__cause__ or error).splitlines()[0]
            raise UserError(
                f"{path}: cannot be read as the trials of a search ({why}); move it away to begin anew, images are kept"
            ) from error

    @property
    def finished(self) -> list[Any]:
        """The trials that have a value, in their order."""
        return self._in_state("COMPLETE")

    @property
    def running(self) -> list[Any]:
        """The trials that some process works on, or worked on when it was killed."""
        return self._in_state("RUNNING")

    def _in_state(self, state: str) -> list[Any]:
        return [trial for trial in self.study.trials if trial.state.name == state]

    @contextmanager
    def next(self, wanted: int) -> Iterator[Any | None]:
        """A trial to work on inside the block; ``None`` if so many are finished or under way.

        One that a killed process left is taken up first: most of its images may be there. A trial that is not told to
        the study inside the block is left so itself.
        """
        with self._alone():
            self._take_up()
            enough = len(self.finished) + len(self.running) >= wanted
            trial = None if enough else self._asked()
            claim = None if trial is None else self._claim(trial.number)
            if claim is not None:
                claim.acquire()
        try:
            yield trial
        finally:
            if claim is not None:
                claim.release()

    def _asked(self) -> Any:
        """A new trial. Its number is the seed: neither a search that goes on nor one beside it tries a setting again."""
        import optuna

        self.study.sampler = optuna.samplers.TPESampler(seed=len(self.study.trials))
        return self.study.ask()

    def _take_up(self) -> None:
        """Give up the trials of dead processes, and put their settings first in line."""
        for trial in self.running:
            claim = self._claim(trial.number)
            if not _free(claim):
                continue
            self.study.tell(trial.number, state=type(trial.state).FAIL)
            if trial.params:
                self.study.enqueue_trial(trial.params)

    def _claim(self, number: int) -> Any:
        from filelock import FileLock

        return FileLock(self.folder / f"{self.name}-{number}.lock")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Inside the block no other process opens the trials or chooses one."""
        from filelock import FileLock, Timeout

        path = self.folder / "trials.lock"
        try:
            with FileLock(path, timeout=WAIT_SECONDS):
                yield
        except Timeout as error:
            raise UserError(f"{path}: another process holds it; give the command again when that has ended") from error
        except NotImplementedError as error:
            raise UserError(
                f"{self.folder}: files cannot be locked here; choose another store.dir for a search"
            ) from error


def _free(claim: Any) -> bool:
    """Whether nobody holds a lock."""
    from filelock import Timeout

    with suppress(Timeout):
        claim.acquire(timeout=0)
        claim.release()
        return True
    return False
