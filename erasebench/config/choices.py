"""Models by the names that the config gives them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml
from omegaconf import MISSING

from erasebench.config.settings import ModelSettings
from erasebench.errors import UserError

CONFIG_MODULE = "erasebench.conf"


def find_model(text: str) -> tuple[str, str | None, str | None]:
    """A model by the name of an option of ``model=`` (``sd14``), or as ``model.path`` takes it.

    Args:
        text: a name, ``embedded``, a folder or a Hub id. A folder of the name comes first.

    Returns:
        Path, revision and name, as :func:`erasebench.models.load.load_model` takes them.

    Raises:
        UserError: ``folder``, which names no model.
    """
    if text not in groups()["model"] or Path(text).is_dir():
        return text, None, None
    node = yaml.safe_load(files(CONFIG_MODULE).joinpath("model", f"{text}.yaml").read_text(encoding="utf-8"))["model"]
    if node["path"] == "???":
        raise UserError(f"{text}: names no model; give the folder or Hub id itself")
    return node["path"], node.get("revision"), text


def groups() -> dict[str, list[str]]:
    """The groups of the config tree and the options of each, from the files that are shipped.

    An option in a folder of its group is called by both names: ``released/uce``.
    """
    root = files(CONFIG_MODULE)
    return {
        folder.name: sorted(_options(folder))
        for folder in sorted(root.iterdir(), key=lambda entry: entry.name)
        if folder.is_dir() and not folder.name.startswith("_")
    }


def _options(folder: Traversable) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.name.endswith(".yaml"):
            yield entry.name.removesuffix(".yaml")
        elif entry.is_dir() and not entry.name.startswith("_"):
            yield from (f"{entry.name}/{name}" for name in _options(entry))


def has_row(method: str) -> bool:
    """Whether an eraser has settings that hang on the model, so that ``conf/method/_rows`` puts it among others."""
    return files(CONFIG_MODULE).joinpath("method", "_rows", f"{method}.yaml").is_file()


def first_comment(group: str, name: str) -> str:
    """The first comment of an option's file that is not Hydra's package line: what the option is."""
    text = option_text(group, name)
    for line in text.splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
    return yaml.safe_load(text).get("_target_", "")


def option_text(group: str, name: str) -> str:
    """The file of an option."""
    return files(CONFIG_MODULE).joinpath(group, f"{name}.yaml").read_text(encoding="utf-8")


def model_name(settings: ModelSettings) -> str:
    """The name that tables give a model: the chosen one, unless that belongs to other weights than these.

    Another ``path`` is named by that path, and weights that were put on by their file, beside what they were put on.
    """
    name = settings.name
    shipped = files(CONFIG_MODULE).joinpath("model", f"{settings.name}.yaml")
    if not shipped.is_file():
        return name
    known = yaml.safe_load(shipped.read_text(encoding="utf-8"))["model"]["path"]
    if known not in (settings.path, MISSING):
        name = f"{Path(settings.path).name} (as {settings.name})"
    return f"{name}+{weights_name(settings.weights)}" if settings.weights else name


def weights_name(path: str) -> str:
    """What to call a file of weights: its name, or its folder's where the file has the name that libraries give it."""
    file = Path(path).expanduser()
    usual = ("pytorch_lora_weights", "adapter_model", "diffusion_pytorch_model", "model", "unet")
    return (file.absolute().parent.name or file.stem) if file.stem in usual else file.stem
