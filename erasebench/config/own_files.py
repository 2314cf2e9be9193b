"""Plugins in files of the user's own, named by a path: ``method=shrink.py`` and ``plugins=[shrink.py]``.

A file is run when it is named, as a module is. So it is named on the command line or by ``plugins``, and never by the node of
a config, which may come from somebody else.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from erasebench.config.overrides import quoted
from erasebench.errors import UserError

ENDING = ".py"


def is_file(name: Any) -> bool:
    """Whether a name is that of a file rather than of a module or an option."""
    return isinstance(name, str) and name.endswith(ENDING)


def module_of(plugin: str) -> str:
    """The name of the module that a plugin is, which for a file is the file's without its ending."""
    return Path(plugin).stem if is_file(plugin) else plugin


def load_file(path: str) -> ModuleType:
    """The module in a file, run once.

    Raises:
        UserError: no such file, a name that no module can have or that another one has, or an error inside it.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        beside = sorted(entry.name for entry in file.parent.glob(f"*{ENDING}")) if file.parent.is_dir() else []
        raise UserError(f"{path}: no such file" + (f"; beside it: {', '.join(beside[:5])}" if beside else ""))
    name = file.stem
    if not (name.isidentifier() and name.isascii()):
        raise UserError(
            f"{path}: {name!r} is no name of a module in plain letters; rename the file, e.g. my_eraser{ENDING}"
        )
    there = sys.modules.get(name)
    if there is not None and Path(getattr(there, "__file__", None) or "/").resolve() == file:
        return there
    other = None if there is not None else importlib.util.find_spec(name)  # python -m finds the file itself
    if there is not None or (other is not None and Path(other.origin or "/").resolve() != file):
        raise UserError(f"{path}: a module called {name} is there already; rename the file")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # any: it is somebody's own code
        del sys.modules[name]
        line = _line(error, file)
        raise UserError(f"{path}{line}: {type(error).__name__}: {error}") from error
    return module


def _line(error: Exception, file: Path) -> str:
    """Where in a file an error was raised, for messages."""
    number = error.lineno if isinstance(error, SyntaxError) else None
    entry = error.__traceback__
    while entry is not None:
        if Path(entry.tb_frame.f_code.co_filename) == file:
            number = entry.tb_lineno
        entry = entry.tb_next
    return f" line {number}" if number else ""


def eraser_node(path: str) -> dict[str, Any]:
    """The node of the one eraser that a file defines: ``_target_`` and every option at its default.

    Raises:
        UserError: what :func:`load_file` refuses; the file defines no eraser, or several.
    """
    module = load_file(path)
    kinds = [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind)
        and kind.__module__ == module.__name__
        and not kind.__name__.startswith("_")
        and all(hasattr(kind, part) for part in ("changes", "make", "refuses"))
    ]
    if len(kinds) != 1:
        names = ", ".join(kind.__name__ for kind in kinds)
        raise UserError(
            f"{path}: defines {f'several erasers ({names}); keep one a file' if kinds else 'no eraser: no class of erasebench.edits.Eraser'}"
        )
    takes = inspect.signature(kinds[0]).parameters.items()
    options = {name: entry.default for name, entry in takes if _is_value(entry.default)}
    for name, value in options.items():
        if any(sign in text for text in _texts(value) for sign in ("\n", "\\", "${")):
            raise UserError(
                f"{path}: the default of {name} has a line break, a backslash or ${{ in it, which a config would change; "
                f"let None stand for it"
            )
    return {"_target_": f"{module.__name__}.{kinds[0].__name__}", **options}


def _is_value(value: Any) -> bool:
    """Whether a default can stand in a config."""
    if isinstance(value, list | tuple):
        return all(map(_is_value, value))
    return value is None or isinstance(value, str | bool | int | float)


def _texts(value: Any) -> list[str]:
    """The texts in a value."""
    if isinstance(value, list | tuple):
        return [text for entry in value for text in _texts(entry)]
    return [value] if isinstance(value, str) else []


def as_overrides(node: Mapping[str, Any], place: str, new: bool) -> list[str]:
    """Overrides that put a node at a place of the config, whose ``_target_`` is new there or is another one's."""
    return [
        f"{'' if key == '_target_' and not new else '+'}{place}.{key}={_spelt(value)}" for key, value in node.items()
    ]


def _spelt(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_spelt, value))}]"
    if isinstance(value, str):
        return quoted(value)
    return "null" if value is None else str(value).lower()  # inf and nan, too, are spelt as Python does


def with_plugins(overrides: Sequence[str], files: Sequence[str]) -> list[str]:
    """Overrides that allow files, too, beside the modules that they allow already."""
    given = [text for text in overrides if text.lstrip("+").startswith("plugins=")]
    inner = ",".join(text.partition("=")[2].strip().removeprefix("[").removesuffix("]") for text in given[-1:])
    listed = ",".join(filter(None, [inner, *dict.fromkeys(map(quoted, files))]))
    return [text for text in overrides if text not in given] + [f"plugins=[{listed}]"]
