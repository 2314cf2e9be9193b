"""Several sets of weight changes as one: their sum, or one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erasebench.edits.change import Change
from erasebench.errors import UserError, suggest
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import named_weight

HOW = {
    "sum": "all changes are added to the unedited weights; the order does not matter",
    "sequence": "each change is applied to the weights that those before it left",
}
"""The ways by name. They differ only for changes that read the weights they change: maps of tokens, and new weights.

To sum a new weight means to add what it differs by from the weight as it was; in a sequence it stands in the place of
all that came before it.
"""


def check_how(how: str, place: str) -> None:
    """Refuse an unknown way.

    Raises:
        UserError: naming the place and the nearest known way.
    """
    if how not in HOW:
        raise UserError(f"{place}: {how!r} is not one of {', '.join(HOW)}.{suggest(how, HOW)}")


def additive(changes: Mapping[str, Change]) -> bool:
    """Whether no change reads the weight it changes, so that applying it later or earlier is the same."""
    return not any(change.reads_weight for change in changes.values())


def combine(parts: Sequence[Mapping[str, Change]], how: str, pipe: Pipeline) -> dict[str, Change]:
    """One set of changes of a pipeline's present weights from several.

    Args:
        parts: changes by weight name.
        how: a key of :data:`HOW`. ``sum``: every part was made for the present weights. ``sequence``: each is
            applied to the weights that the parts before it left.
        pipe: the pipeline; it is read only where a change that reads its weight meets one of another form.

    Returns:
        Weights that shared a change in token form share one again.
    """
    total: dict[str, Change] = {}
    for part in parts:
        shared: dict[tuple[int, int], Change] = {}
        joined = dict(total)
        for name, change in part.items():
            if name not in total:
                joined[name] = change
                continue
            before = total[name]
            if before.acts_on_token and change.acts_on_token:
                pair = id(before), id(change)
                if pair not in shared:
                    shared[pair] = before.plus(change) if how == "sum" else before.then(change)
                joined[name] = shared[pair]
            else:
                joined[name] = _at_weight(before, change, how, named_weight(pipe, name).detach())
        total = joined
    return total


def _at_weight(before: Change, change: Change, how: str, weight: Any) -> Change:
    """The same for forms that have no sum without the weight."""
    if how == "sequence" and change.value is not None:
        return change
    if how == "sequence" and change.acts_on_token:
        before = before.at(weight)
        return before.plus(change.at(weight.cpu().double() + before.of(weight)))
    return before.at(weight).plus(change.at(weight))
