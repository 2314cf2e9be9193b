"""What is asked of a table: an order of rows, the interval of rates, ranks, power, and the setting to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from erasebench.errors import UserError
from erasebench.progress import say
from erasebench.runs.about import About
from erasebench.runs.names import CONFIG_FILE
from erasebench.runs.sweep import command
from erasebench.scores.rates import WILSON
from erasebench.tables import attacks, best, by_concept, columns, power
from erasebench.tables.answer import print_answer
from erasebench.tables.numbers import Numbers
from erasebench.tables.printed import print_tables
from erasebench.tables.reliability import print_reliability, reliability


@dataclass(frozen=True)
class View:
    """How a table is shown.

    Attributes:
        sort: the column that orders the rows of printed tables, the best first.
        power: also say how many prompts it takes to tell two erasers apart.
        best: conditions, e.g. ``retained>=0.9``: also say which setting to take.
        rates: the interval of rates, one of :data:`erasebench.scores.rates.RATE_INTERVALS`.
        by_concept: also print the rates of each concept alone.
        reliability: also say what the order of erasers is worth, see :mod:`erasebench.tables.reliability`.
        full: also print every column, a table a kind, with all that decides the numbers.
    """

    sort: str | None = None
    power: bool = False
    best: str | None = None
    rates: str = WILSON
    by_concept: bool = False
    reliability: bool = False
    full: bool = False

    def check(self, measured: pd.DataFrame) -> None:
        """Refuse what does not fit a table, before anything is written.

        Raises:
            UserError: an unknown column (with the nearest and all), or a condition that is none.
        """
        if self.sort and self.sort != "eraser":
            columns.find(self.sort, measured, "--sort")
        if self.best:
            best.conditions(self.best, measured)

    def show(self, numbers: Numbers, about: About, console: Console) -> None:
        """Print the tables of runs, and what the same scores tell besides."""
        measured = numbers.measured
        shown = columns.sort_rows(measured, self.sort) if self.sort else measured
        if self.full:
            print_tables(shown, about, console, numbers.pairs)
        print_answer(shown, numbers.pairs, about, console)
        attacks.print_attacks(numbers.attacked, console, about.forgot)
        if self.by_concept:
            by_concept.print_concepts(numbers.concepts, measured, console)
        if self.reliability:
            print_reliability(reliability(measured, numbers.pairs, numbers.concepts), console)
        if self.power:
            power.print_power(numbers.pairs, console)

    def choose(
        self,
        measured: pd.DataFrame,
        folders: Sequence[Path],
        option: str | None,
        console: Console,
        halves: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    ) -> None:
        """Print the setting that ``best`` picks for each kind, and the command that runs it alone.

        Args:
            measured: the table.
            folders: of the runs.
            option: that they vary.
            console: where to print.
            halves: the same measured on two halves of the prompts: it is chosen on the first, and reported on the second.

        Raises:
            UserError: no setting of a kind fulfils the conditions.
        """
        if not self.best:
            return
        wanted = best.conditions(self.best, measured)
        chosen_by, other = halves or (measured, None)
        on = "on the other half of the prompts" if halves else "on the prompts it was chosen by, which flatters it"
        for kind in dict.fromkeys(measured.task_kind):
            choice = best.choose(chosen_by, kind, wanted, other)
            lines = [f"best of kind {kind} with {choice.wanted}: {choice.eraser} ({choice.text}, {on})"]
            if choice.alike:
                lines.append(f"  its interval does not tell it from: {', '.join(choice.alike)}")
            try:
                again = command(folders, choice.eraser, option)
                lines.append(f"  {again or f'its eraser is none of the shipped configs: see {CONFIG_FILE} of its run'}")
            except UserError as error:  # a config of an older version
                lines.append(f"  its command cannot be given: {error}")
            for line in lines:
                say(console, line)
