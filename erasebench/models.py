"""Models by the names that the config gives them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import yaml

from erasebench.config import CONFIG_MODULE, groups
from erasebench.errors import UserError


def find_model(text: str) -> tuple[str, str | None, str | None]:
    """A model by the name of an option of ``model=`` (``sd14``), or as ``model.path`` takes it.

    Args:
        text: a name, ``embedded``, a folder or a Hub id. A folder of the name comes first.

    Returns:
        Path, revision and name, as :func:`erasebench.pipelines.load_model` takes them.

    Raises:
        UserError: ``folder``, which names no model.
    """
    if text not in groups()["model"] or Path(text).is_dir():
        return text, None, None
    node = yaml.safe_load(files(CONFIG_MODULE).joinpath("model", f"{text}.yaml").read_text(encoding="utf-8"))["model"]
    if node["path"] == "???":
        raise UserError(f"{text}: names no model; give the folder or Hub id itself")
    return node["path"], node.get("revision"), text
