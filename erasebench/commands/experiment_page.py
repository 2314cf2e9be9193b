"""``erasebench show experiment NAME``: every choice of a table of a paper, as released and as it is run here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from erasebench.commands.protocol_page import choices_of, entries, wrapped
from erasebench.config.build import places
from erasebench.config.choices import groups
from erasebench.config.compose import compose
from erasebench.config.protocol import OBEYED, Protocol
from erasebench.config.values import plain_values
from erasebench.edits.released import LIST, Choice, deviations, known_lists, ours_of, release_of, setting_in
from erasebench.errors import UserError, suggest

NAMED = 10
"""Names of a task that are printed; of more, their number is."""


def page(name: str, overrides: Sequence[str] = ()) -> str:
    """All of an experiment for people: what is run, each choice as released, ours and where it was read, and last what
    cannot be as released.

    Args:
        name: of a config in ``conf/experiment``.
        overrides: as ``erasebench run`` takes them beside it; what they change shows.

    Raises:
        UserError: no such experiment, or overrides that cannot be.
    """
    known = groups()["experiment"]
    if name not in known:
        raise UserError(f"show experiment {name}: no such experiment.{suggest(name, known)} Known: {', '.join(known)}")
    config = compose([f"experiment={name}", *overrides])
    about, protocol = config.experiment, Protocol.from_config(config.protocol)
    lines = [f"experiment {name}: {about.paper}, {about.table}", *(wrapped(about.note, 0) if about.note else [])]
    lines += ["", "what is measured", *entries(_measured(config), 2)]
    lines += ["", f"how images are made (protocol {protocol.name}; more: erasebench show protocol {protocol.name})"]
    lines += choices_of(protocol, OBEYED)
    amiss = [f"images: {key}: {text}" for key, text in {**protocol.differs, **protocol.unsure}.items()]
    amiss += [f"metric not built: {key}: {text}" for key, text in protocol.lacks.items()]
    for place, node in places(plain_values(config.method), "method", "_target_").items():
        lines += ["", *_row(place, node)]
        deviating = deviations(node)
        amiss += [f"{place}: settings of ours, which claim no release"] if deviating is None else []
        amiss += [f"{place}: {option}: {_value_text(ours)}" for option, ours in (deviating or {}).items()]
    lines += ["", "what is not as released", *(entries(amiss, 2) if amiss else ["  nothing"])]
    return "\n".join([*lines, "", f"run it with: erasebench run experiment={name}"])


def _measured(config: Any) -> dict[str, str]:
    """Model, tasks, prompts, metrics and attacks in words."""
    tasks = list(places(plain_values(config.task), "task", "kind").values())
    anchors, retained = ({str(task[key]) for task in tasks} for key in ("anchor", "retain"))
    return {
        "model": f"{config.model.name} ({config.model.path})",
        "erased": "; ".join(map(_erased, tasks)),
        "anchor": f"{', '.join(map(repr, sorted(anchors)))}, where a row does not say its own",
        "retained": f"{', '.join(sorted(retained))} (only erasers whose row says retain or preserve: task are told)",
        "prompts": str(config.prompts.get("file_of") or config.prompts.source),
        "metrics": ", ".join(config.metric),
        **({"attacks": ", ".join(config.attack)} if config.attack else {}),
    }


def _erased(task: Mapping[str, Any]) -> str:
    """What one task erases, in words."""
    erase = task["erase"]
    if not isinstance(erase, str):
        names = ", ".join(erase) if len(erase) <= NAMED else f"{len(erase)} concepts"
        edits = "all in one edit" if task["joint"] else "one edit each"
        erase = names if len(erase) == 1 else f"{names} ({edits})"
    return f"{erase}, of kind {task['kind']}"


def _row(place: str, node: Mapping[str, Any]) -> Iterator[str]:
    """One eraser: a line a choice."""
    choices = release_of(node)
    if choices is None:
        yield f"{place}: settings of ours"
        return
    yield f"{place}: settings of the release {node['released']} (choice: released; ours; [source])"
    for choice in choices:
        yield from wrapped(f"{choice.option:<22} {_line(choice, node)}  [{choice.source}]", 2, hang=23)


def _line(choice: Choice, node: Mapping[str, Any]) -> str:
    if choice.what == "note":
        return str(choice.value)
    if choice.what != "setting":
        return f"{choice.value}; ours: {ours_of(choice, node)}"
    ours = setting_in(node, choice.option)
    if str(choice.value).startswith(LIST):
        known = known_lists()[choice.value.removeprefix(LIST).removesuffix("}")]
        given = f"lists.{known.name}, not given: {known.file}" if ours is None else _value_text(ours)
        return f"{known.says}; ours: {given}"
    return f"{_value_text(choice.value)}; ours: {'the same' if ours == choice.value else _value_text(ours)}"


def _value_text(value: Any) -> str:
    return "null (by the rule of the class)" if value is None else '""' if value == "" else str(value)
