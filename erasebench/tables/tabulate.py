"""From the records of finished runs to tables and pictures: what ``run`` ends with and ``table`` does again.

Nothing here loads a model. A run's folder says which prompts, images and metrics belong together; the records of the
store say what was measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from pathlib import Path

import pandas as pd
from rich.console import Console

from erasebench.edits.label import Label, row_text, swept_option
from erasebench.errors import UserError
from erasebench.files import write_json
from erasebench.progress import say
from erasebench.runs.about import About, read_about
from erasebench.runs.costs import read_costs
from erasebench.runs.folder import erasers_of, find_runs, metrics_of, read_config, read_plan
from erasebench.runs.names import GRIDS_FOLDER, PLAN_FILE, SWEPT_FILE, TABLES_FOLDER
from erasebench.runs.state import check_finished
from erasebench.runs.sweep import store_option
from erasebench.scores.metric import Metric
from erasebench.scores.rates import WILSON
from erasebench.store import Store
from erasebench.tables import comparable as mixing
from erasebench.tables import measure as tables
from erasebench.tables import published
from erasebench.tables.comparable import _check_comparable
from erasebench.tables.kept import keep, kept, kept_key, made_is_there, note_written, written_is_there
from erasebench.tables.numbers import Numbers, numbers_of, side_by_side
from erasebench.tables.printed import print_caption
from erasebench.tables.published_match import Ran
from erasebench.tables.recognised import became_unsafe, by_image, recognised
from erasebench.tables.searches import searches_of, write_searches
from erasebench.tables.success import success_by_rule, write_success
from erasebench.tables.view import View

STRENGTH_FORMATS = ("png", "svg")
"""Of the plot of strength; the others are in a report."""


def reduce_and_write(
    folder: Path,
    store: Store,
    metrics: Sequence[Metric],
    not_run: Mapping[str, str],
    console: Console,
    view: View | None = None,
    whole: bool = True,
) -> pd.DataFrame:
    """Make the tables and pictures of a run from its plan and the store's records, and print the answer.

    Args:
        folder: of the run.
        store: of its records and images.
        metrics: all that were asked for.
        not_run: by ``metric.id``, why one has no scores.
        console: where to print.
        view: see :class:`erasebench.tables.view.View`.
        whole: nothing is lacking, so that the numbers may be kept for the next time.
    """
    from erasebench.tables import attack_sheet, grid  # they load matplotlib, which a run that is finished does not need

    plan = read_plan(folder)
    costs = read_costs(folder, plan, store)
    about = read_about(folder)
    scores = _scores(store, metrics)
    view = view or View()
    measured = tables.measure(plan, scores, metrics, not_run_because=not_run, costs=costs, rates=view.rates)
    view.check(measured)
    numbers = numbers_of(measured, plan, scores, metrics, not_run, view.rates)
    numbers.write(folder / TABLES_FOLDER, about)
    made = write_searches(searches_of(plan, store), folder / TABLES_FOLDER)
    by_rule = success_by_rule(plan, scores, metrics, store, not_run, view.rates)
    made += write_success(by_rule, folder / TABLES_FOLDER)
    judges, verdicts = recognised(plan, scores, [metric for metric in metrics if metric.id not in not_run])
    seen = by_image(plan, verdicts)
    for kind in dict.fromkeys(plan.task_kind):
        path, blur = folder / GRIDS_FOLDER / f"{kind}.png", about.blurs(kind)
        drawn = grid.draw(
            plan[plan.attack == ""], store, kind, path,
            blur=blur, seen=seen, seen_by=" and ".join(judges), unsafe=became_unsafe(plan, verdicts),
        )  # fmt: skip
        sheet = attack_sheet.draw_sheet(plan, store, kind, path.with_name(f"attacks-{kind}.png"), seen, blur)
        made += [drawn, *([sheet] if sheet else [])]
    if whole:
        keep(numbers, folder, kept_key(folder, store, view.rates), made)
        note_written(folder)
    view.show(numbers, about, console)
    _say_more([folder.name], folder, store, console)
    if read_config(folder).get("experiment"):
        ran = Ran.from_folder(folder)
        asked = tables.measure_asked(plan, scores, published.asked_of(ran, metrics), not_run, view.rates)
        table = published.beside(measured, ran, asked)
        published.write_beside(table, folder / TABLES_FOLDER, ran.experiment, about)
        published.print_beside(table, ran.experiment, about, console)
    return measured


def _scores(store: Store, metrics: Sequence[Metric]) -> dict[str, pd.DataFrame]:
    """The stored scores of metrics by their ``records_id``, each read once."""
    inputs = {metric.records_id: metric.inputs for metric in metrics}
    return {records: store.scores(records, columns) for records, columns in inputs.items()}


def tabulate(
    runs: Sequence[str],
    store_dir: str,
    out: str | None = None,
    console: Console | None = None,
    allow_mixed: bool = False,
    view: View | None = None,
    plugins: Sequence[str] = (),
) -> pd.DataFrame:
    """``erasebench table``: the tables of finished runs, made again from records.

    Args:
        runs: names of runs, or of a sweep for all its runs; none is the latest run. Several are put into one table.
        store_dir: the results folder.
        out: where to write; a single run's own folder if not given.
        allow_mixed: give runs that were measured differently labelled columns of their own instead of refusing them.
        view: see :class:`erasebench.tables.view.View`.
        plugins: modules of the user's own that metrics and erasers of these runs may come from.

    Raises:
        UserError: no such run, runs whose numbers cannot stand in one table (what differs is named), or a view that
            does not fit the table.
    """
    console, view = console or Console(), view or View()
    store = Store(store_dir)
    folders = find_runs(store, runs)
    if (
        len(folders) == 1
        and out is None
        and not view.best
        and (numbers := show_kept(folders[0], store, console, view)) is not None
    ):
        return numbers.measured
    for folder in folders:
        check_finished(folder, store, plugins)
    folder_name = runs[0] if len(runs) == 1 and len(folders) > 1 else joint_name(folders)
    target = Path(out) if out else store.root / "tables" / folder_name
    groups = mixing.alike(folders) if allow_mixed else [folders]
    if len(folders) == 1 and out is None:
        metrics, not_run = metrics_of(folders[0], plugins)
        measured = reduce_and_write(folders[0], store, metrics, not_run, console, view)
    elif len(groups) > 1:
        if view.best:
            raise UserError("--best: picks among settings that were measured alike; give it runs of one protocol")
        return _mixed(groups, store, target, console, view, plugins)
    else:
        measured = _together(folders, store, target, console, view, plugins)
    option = _swept(folders)
    if view.best:
        from erasebench.tables.halves import measured_halves  # which is made of this module's joint runs

        halves = measured_halves(folders, store, view.rates, plugins)
        view.choose(measured, folders, option, console, halves)
    return measured


def _swept(folders: Sequence[Path]) -> str | None:
    """The option that runs vary."""
    return swept_option(label for folder in folders for label, _ in erasers_of(folder).values())


def show_kept(folder: Path, store: Store, console: Console, view: View | None = None) -> Numbers | None:
    """Print the tables of a finished run from the numbers that were kept of it, and write those of their files that are
    no more what they were; scores and images are not read.

    The arguments are those of :func:`reduce_and_write`.

    Returns:
        ``None``, and nothing is written, where no numbers were kept of these records by this code, or a file that was made
        beside them is gone (a picture, say).
    """
    view = view or View()
    if not (folder / PLAN_FILE).exists() or not made_is_there(folder):
        return None
    if (numbers := kept(folder, kept_key(folder, store, view.rates))) is None:
        return None
    view.check(numbers.measured)
    about = read_about(folder)
    if not written_is_there(folder):
        numbers.write(folder / TABLES_FOLDER, about)
        note_written(folder)
    view.show(numbers, about, console)
    _say_more([folder.name], folder, store, console)
    return numbers


def _say_more(names: Sequence[str], folder: Path, store: Store, console: Console) -> None:
    """Print where the rest is."""
    runs = f"{' '.join(names)}{store_option(store.root)}"
    say(console, f"erasebench table {runs} --full", "all columns:")
    say(console, f"erasebench report {runs}", "with images:")
    say(console, "erasebench explain kept", "what a word means:")
    say(console, str(folder), "files:")


def tabulate_sweep(
    folders: Sequence[Path], console: Console | None = None, plugins: Sequence[str] = ()
) -> pd.DataFrame | None:
    """The runs of a sweep in one table, with a plot of the frontier, and one of strength if one option was varied.

    The table's folder also lists the runs: its name stands for them in ``erasebench table``.

    Returns:
        ``None`` if their numbers cannot stand in one table (a sweep over models); why is printed.
    """
    console = console or Console()
    store = Store(folders[0].parent.parent)
    alike = commonprefix([folder.name for folder in folders])[:40].strip("-.")
    target = store.root / "tables" / f"sweep-{alike}-{joint_name(folders)[-8:]}"
    try:
        measured = _together(folders, store, target, console, View(), plugins)
    except UserError as error:
        print_caption(f"no table of the whole sweep: {error}", console, style="")
        return None
    write_json(target / SWEPT_FILE, [folder.name for folder in folders])
    say(
        console, f'pick a setting with: erasebench table {target.name}{store_option(store.root)} --best "retained>=0.9"'
    )
    return measured


def joint_name(folders: Sequence[Path]) -> str:
    """A folder name for some runs together: one set of runs, one name."""
    names = "+".join(folder.name for folder in folders)
    return f"{names[:80]}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Joint:
    """Runs whose numbers may stand in one table, put together.

    Attributes:
        plan: the rows of all of them, each once.
        costs: what their edits cost.
        metrics: every metric that one of them asked for.
        not_run: by ``metric.id``, why none of them has scores of it.
        about: what the captions say.
        option: the one numeric option of an eraser that the rows vary, or ``None``.
        labels: of the rows, by their texts.
        measured: see :func:`erasebench.tables.measure.measure`.
        scores: by ``metric.records_id``, the stored scores.
    """

    plan: pd.DataFrame
    costs: pd.DataFrame
    metrics: list[Metric]
    not_run: dict[str, str]
    about: About
    option: str | None
    labels: dict[str, Label]
    measured: pd.DataFrame
    scores: dict[str, pd.DataFrame]


def join_runs(folders: Sequence[Path], store: Store, rates: str = WILSON, plugins: Sequence[str] = ()) -> Joint:
    """Read finished runs, one or several, and measure them together.

    Raises:
        UserError: their numbers cannot stand in one table; what differs is named.
    """
    about = mixing.check_same(folders)
    by_id: dict[str, Metric] = {}
    reasons: list[tuple[set[str], dict[str, str]]] = []
    for folder in folders:
        asked, why = metrics_of(folder, plugins)
        by_id |= {metric.id: metric for metric in asked}
        reasons.append(({metric.id for metric in asked}, why))
    # What one run could not measure may have been measured by another one.
    not_run = {
        name: next(why[name] for _, why in reasons if name in why)
        for name in by_id
        if all(name in why for asked, why in reasons if name in asked)
    }
    plans = [read_plan(folder) for folder in folders]
    own = [_labels(folder, plan) for folder, plan in zip(folders, plans, strict=True)]
    option = swept_option(label for labels in own for label in labels.values())
    costs = [read_costs(folder, plan, store) for folder, plan in zip(folders, plans, strict=True)]
    if option and len(folders) > 1:
        # Their one table says for every row what was varied, also where it has its default.
        for rows, cost_rows, labels in zip(plans, costs, own, strict=True):
            shown = {
                row_text(text, attack): row_text(label.showing(option).text, attack)
                for text, label in labels.items()
                for attack in ("", *rows.attack.unique())
            }
            rows["eraser"], cost_rows["eraser"] = rows.eraser.map(shown), cost_rows.eraser.map(shown)
        own = [{label.showing(option).text: label.showing(option) for label in labels.values()} for labels in own]
    plan = pd.concat(plans, ignore_index=True).drop_duplicates(["eraser", "task_kind", "task", "prompt_id", "key"])
    _check_comparable(plan)
    cost = pd.concat(costs, ignore_index=True).drop_duplicates(["eraser", "task_kind", "task"])
    metrics = list(by_id.values())
    scores = _scores(store, metrics)
    every = {text: Label(text) for text in plan.eraser.unique()}  # one under an attack is its text, and nothing more
    every |= {text: label for labels in own for text, label in labels.items()}
    measured = tables.measure(plan, scores, metrics, not_run_because=not_run, costs=cost, rates=rates)
    return Joint(plan.reset_index(drop=True), cost, metrics, not_run, about, option, every, measured, scores)


def _labels(folder: Path, plan: pd.DataFrame) -> dict[str, Label]:
    """The labels of a run's erasers; one that the run does not explain is its text, and nothing more."""
    explained = erasers_of(folder)
    erasers = dict.fromkeys(plan.eraser[plan.attack == ""])
    return {text: explained[text][0] if text in explained else Label(text) for text in erasers}


def _together(
    folders: Sequence[Path], store: Store, target: Path, console: Console, view: View, plugins: Sequence[str]
) -> pd.DataFrame:
    from erasebench.tables import frontier, plots  # see reduce_and_write

    joint = join_runs(folders, store, view.rates, plugins)
    view.check(joint.measured)
    numbers = _numbers(joint, view)
    numbers.write(target, joint.about)
    for kind in dict.fromkeys(joint.measured.task_kind):
        frontier.write(joint.measured, kind, target, joint.labels, joint.option)
        if joint.option:
            strength = plots.draw_strength(joint.measured, kind, joint.option, joint.labels)
            plots.write(strength, target / f"{kind}-{joint.option}", STRENGTH_FORMATS)
    view.show(numbers, joint.about, console)
    _say_more([folder.name for folder in folders], target, store, console)
    return joint.measured


def _mixed(
    groups: Sequence[Sequence[Path]], store: Store, target: Path, console: Console, view: View, plugins: Sequence[str]
) -> pd.DataFrame:
    """Runs that were measured differently, in one table with labelled columns for each way."""
    names = mixing.labels(groups)
    joints = [join_runs(group, store, view.rates, plugins) for group in groups]
    numbers = side_by_side([_numbers(joint, view) for joint in joints], names)
    about = mixing.captions([joint.about for joint in joints], names)
    view.check(numbers.measured)
    numbers.write(target, about)
    replace(view, full=True).show(numbers, about, console)  # each way of measuring has columns of its own
    say(console, str(target), "files:")
    return numbers.measured


def _numbers(joint: Joint, view: View) -> Numbers:
    return numbers_of(joint.measured, joint.plan, joint.scores, joint.metrics, joint.not_run, view.rates)
