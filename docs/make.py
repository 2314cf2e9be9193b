"""Write docs/python.md from the docstrings of what ``import erasebench`` offers, and of what a plugin is made of.

    python docs/make.py

A test says when the page is not what the docstrings say.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "python.md"

PARTS = {
    "In a notebook": ("erasebench", ("load_model", "task", "erase", "generate", "score", "compare", "load_run")),
    "For an eraser, a guard or an attack": (
        "erasebench.edits",
        ("Eraser", "Change", "Edit", "Hook", "Attack", "Tools", "Found"),
    ),
    "Models": ("erasebench.models", ("load_model", "Model", "Pipeline", "text_inputs")),
    "For a metric": ("erasebench.scores", ("Metric", "Estimate")),
}
"""What is on the page: heading, the module it is imported from, and its names."""


def page() -> str:
    """The whole page."""
    parts = [
        "# erasebench in Python", "",
        "What may be relied upon; everything else may move. Made from the docstrings by `python docs/make.py`. "
        "[first_steps.ipynb](first_steps.ipynb) uses most of it; [CONTRIBUTING.md](../CONTRIBUTING.md) has whole plugins.", "",
    ]  # fmt: skip
    for heading, (module, names) in PARTS.items():
        parts += [f"## {heading}", ""]
        for name in names:
            parts += [*_entry(module, name, getattr(import_module(module), name)), ""]
    return "\n".join(parts).rstrip() + "\n"


def _entry(module: str, name: str, value: Any) -> list[str]:
    """One function or class: its signature, its docstring, and those of its public methods."""
    lines = [f"### `{module}.{name}`", "", "```python", f"{name}{_signature(value)}", "```", "", _text(value)]
    if inspect.isclass(value):
        own = [(key, item) for key, item in vars(value).items() if not key.startswith("_") and inspect.isfunction(item)]
        for key, item in own:
            if inspect.getdoc(item):
                lines += ["", f"- **`{key}{_signature(item)}`** {_summary(item)}"]
    return lines


class _Annotation(str):
    """The text of an annotation, which is printed without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _signature(value: Any) -> str:
    signature = inspect.signature(value)
    shown = [
        entry.replace(
            annotation=_Annotation(entry.annotation) if isinstance(entry.annotation, str) else entry.annotation
        )
        for name, entry in signature.parameters.items()
        if name != "self"
    ]
    returned = signature.return_annotation
    returned = _Annotation(returned) if isinstance(returned, str) else returned
    return re.sub(
        r"<factory>|<function .*? at 0x\w+>",
        "...",
        str(signature.replace(parameters=shown, return_annotation=returned)),
    )


def _summary(value: Any) -> str:
    return " ".join(_without_roles(inspect.getdoc(value) or "").split("\n\n")[0].split())


def _text(value: Any) -> str:
    """A docstring as Markdown: its sections in bold, its entries as lists, examples as code."""
    out: list[str] = []
    code, rules = False, 0
    for raw in (inspect.getdoc(value) or "").splitlines():
        if raw.startswith("===") or rules in (1, 2):  # a table, of three such lines, as it stands
            rules += raw.startswith("===")
            out += {1: ["```text", raw]}.get(rules, [raw]) if raw.startswith("===") else [raw]
            out += ["```"] * (rules == 3)
            continue
        line = _without_roles(raw)
        section = re.fullmatch(r"(Args|Returns|Raises|Attributes|Class attributes|Example):", line)
        entry = re.fullmatch(r" {4}(\w[\w, *.]*): (.*)", line)
        if line.strip().startswith((">>>", "...")) and not code:
            out.append("```python")
            code = True
        if code and not line.strip():
            out.append("```")
            code = False
        if section:
            out += [f"**{section[1]}**", ""]
        elif entry:
            out.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            deeper = re.match(r" {8}(?=\S)", line) and not code  # a second line of an entry
            out.append("  " + line.strip() if deeper else line.removeprefix("    ") if code else line.rstrip())
    return "\n".join([*out, "```"] if code else out)


def _without_roles(text: str) -> str:
    """Without the marks by which docstrings link."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
