"""``erasebench tiny``: the embedded model."""

from __future__ import annotations

from importlib import import_module

from erasebench.commands import VERBS
from erasebench.errors import UserError, suggest

ACTIONS = {
    "train": "rebuild the embedded model from nothing (seeded, resumable; hours on two cores)",
    "retrain": "train its UNet without the pictures of a concept, for method=retrained (minutes to half an hour)",
    "sample": "a grid of renders beside generated images",
    "evaluate": "how well the judge recognises what the unedited model draws",
}


def main(arguments: list[str]) -> int:
    """Hand the arguments to an action."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: erasebench tiny ACTION [...]\n")
        print(VERBS["tiny"][0].upper() + VERBS["tiny"][1:] + ", which a run uses if no other is chosen.\n")
        print("\n".join(f"  {name:<9} {text}" for name, text in ACTIONS.items()))
        print("\nEach explains itself: erasebench tiny ACTION --help")
        return 0
    action, rest = arguments[0], arguments[1:]
    if action not in ACTIONS:
        raise UserError(f"tiny {action}: no such action.{suggest(action, ACTIONS)} Known: {', '.join(ACTIONS)}")
    return import_module(f"erasebench.tiny.{action}").main(rest) or 0
