"""Control: a model that was trained without the concept, beside which an eraser can be judged."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from safetensors import SafetensorError, safe_open

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Change, Eraser
from erasebench.edits.label import OF_THIS_MACHINE
from erasebench.errors import UserError
from erasebench.files import read_whole
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser, named_weight

if TYPE_CHECKING:
    from erasebench.models.load import Model


@dataclass(frozen=True)
class Retrained(Eraser):
    """All weights of the denoiser are those of a training without the concept's images.

    What such a model makes of the concept's prompts is what a model makes of words whose images it never saw; its text
    encoder still knows the words. An eraser need not equal it to be good, and one that equals it has erased what training
    put there. ``erasebench tiny retrain`` makes the files for the embedded model.

    Attributes:
        folder: of ``.safetensors`` files; the one whose header says that exactly the task's concepts were left out is
            taken, whatever its name.
        optional: one control among other erasers: a run goes on without it where a file is lacking, and says so.

    Raises:
        UserError: by :meth:`check`: no such file, with the command that makes it, or several; by :meth:`refuses`: one of
            another model.
    """

    name: ClassVar[str] = "retrained"
    describe: ClassVar[str] = "control: a denoiser that was trained without the concept's images"
    control: ClassVar[bool] = True

    folder: str = field(metadata=OF_THIS_MACHINE)
    optional: bool = field(default=False, metadata=OF_THIS_MACHINE)

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """As of every eraser, with the content of the file in the place of the folder."""
        file = self._file(task)
        model = str(self._files()[file]["model"])
        # Plans and estimates ask before any model is loaded.
        if model_identity.partition(" ")[0] not in ("", "?", model):
            raise UserError(
                f"retrained: {file} was trained anew for another model ({model:.19}); move it to a folder of its own"
            )
        return self.key_of(model_identity, task, {"sha256": hashlib.sha256(read_whole(file)).hexdigest()})

    def refuses(self, model: Model) -> str | None:
        """Another model than the one that was trained anew."""
        models = {str(about["model"]) for about in self._files().values()}
        if models and model.revision not in models:
            return f"what lies in {self.folder} was trained anew for another model ({sorted(models)[0]:.19})"
        return None

    def absent(self, task: ErasureTask) -> str | None:
        """That there is no file for a task, with the command that makes it, if it is optional."""
        return self._lacking(task) if self.optional and not self._fitting(task) else None

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """Refuse a task for which there is no file, and a file that does not fit."""
        with safe_open(self._file(task), framework="pt") as opened:
            there = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
        part = next(name for name, module in pipe.components.items() if module is denoiser(pipe))
        wanted = {f"{part}.{name}": tuple(weight.shape) for name, weight in denoiser(pipe).named_parameters()}
        if odd := sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name)):
            raise UserError(
                f"retrained: {self._file(task)}: {odd[0]} does not fit the model; it was made for another one"
            )

    def changes(self, pipe: Pipeline, task: ErasureTask) -> tuple[dict[str, Change], dict[str, Any]]:
        """Every weight of the denoiser, as trained."""
        file = self._file(task)
        with safe_open(file, framework="pt") as opened:
            made = {
                name: Change(value=opened.get_tensor(name).to(named_weight(pipe, name).dtype))
                for name in opened.keys()  # noqa: SIM118
            }
        return made, {"training": self._files()[file]}

    def _files(self) -> dict[Path, dict[str, Any]]:
        """What the headers of the folder's files say; those of other files are passed over."""
        abouts = {}
        for file in sorted(Path(self.folder).expanduser().glob("*.safetensors")):
            try:
                with safe_open(file, framework="pt") as opened:
                    about = json.loads((opened.metadata() or {}).get("retrained", "null"))
            except (SafetensorError, OSError, ValueError) as error:
                raise UserError(f"retrained: {file} cannot be read ({error!s:.120}); make it again") from error
            if isinstance(about, dict) and {"without", "model"} <= about.keys():
                abouts[file] = about
        return abouts

    def _fitting(self, task: ErasureTask) -> list[Path]:
        """The files whose training left out exactly the concepts of a task."""
        wanted = {name.casefold() for name in task.names}
        return [
            file
            for file, about in self._files().items()
            if {str(name).casefold() for name in about["without"]} == wanted
        ]

    def _lacking(self, task: ErasureTask) -> str:
        names = " ".join(f'"{name}"' if " " in name else name for name in task.names)
        return (
            f"no model in {self.folder} was trained without {task.label}; make it with: "
            f"erasebench tiny retrain --without {names} --out {self.folder}"
        )

    def _file(self, task: ErasureTask) -> Path:
        fitting = self._fitting(task)
        if len(fitting) > 1:
            raise UserError(f"retrained: {fitting[0]} and {fitting[1].name} both leave out {task.label}; keep one")
        if not fitting:
            raise UserError(f"retrained: {self._lacking(task)}")
        return fitting[0]
