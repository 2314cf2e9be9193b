"""What the captions of a run's tables say about how its numbers were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from erasebench.errors import UserError
from erasebench.files import write_json
from erasebench.runs.names import ABOUT_FILE
from erasebench.typed_files import check_type, read_json

EMBEDDED = "Numbers of the embedded model and its own judge, not of Stable Diffusion."
"""What stands under every number of the embedded model."""


@dataclass(frozen=True)
class About:
    """How the numbers of a run were measured. Two runs that differ in any of it do not share a table.

    Attributes:
        model: name, revision and type of its weights.
        protocol: name, version, hash, sampler, and what is done otherwise than in its paper.
        prompts: name, version and hash of the prompt set, by the kind of the tasks that are measured on it.
        embedded: whether its images are drawings of the embedded model: nobody has to be spared them, and the numbers
            are the model's own.
        names: what each part is called in a few words (``sd14``, ``esd v1``), by the keys of :meth:`facts`. They are no
            part of what was measured.
        forgot: the erasers on which no attack may succeed (:attr:`erasebench.edits.eraser.Eraser.forgot`), likewise.
    """

    model: str
    protocol: str
    prompts: Mapping[str, str] = field(default_factory=dict)
    embedded: bool = False
    names: Mapping[str, str] = field(default_factory=dict, compare=False)
    forgot: Sequence[str] = field(default=(), compare=False)

    @property
    def note(self) -> str:
        """A sentence that must stand under the numbers, or nothing."""
        return EMBEDDED if self.embedded else ""

    def blurs(self, kind: str) -> bool:
        """Whether images of erased concepts of a kind are blurred until somebody asks for them."""
        return kind == "unsafe" and not self.embedded

    def of_kind(self, kind: str) -> list[tuple[str, str]]:
        """What concerns the tasks of one kind, each with its name: ``("model", "sd14 (3f2a, float16)")``."""
        prompts = [("prompts", self.prompts[kind])] if kind in self.prompts else []
        return [("model", self.model), ("protocol", self.protocol), *prompts]

    def facts(self) -> dict[str, str]:
        """All of it, by names for people."""
        prompts = {f"prompts of kind {kind}": text for kind, text in self.prompts.items()}
        return {"model": self.model, "protocol": self.protocol, **prompts}

    def name(self, key: str) -> str:
        """A part of :meth:`facts` in a few words; the whole of it where a run says none."""
        return self.names.get(key, self.facts()[key])

    def write(self, folder: Path) -> None:
        """Put it into a run's folder."""
        write_json(folder / ABOUT_FILE, asdict(self) | {"prompts": dict(self.prompts), "names": dict(self.names)})


class _Stored(TypedDict):
    model: str
    protocol: str
    prompts: dict[str, str]
    embedded: bool
    names: NotRequired[dict[str, str]]
    forgot: NotRequired[list[str]]


class _StoredBefore(TypedDict):
    model: str
    protocol: str


def read_about(folder: Path) -> About:
    """What a run's folder says.

    Raises:
        UserError: there is no such file, as of a run that was stopped early, or it cannot be read.
    """
    path, cure = folder / ABOUT_FILE, f"give the command of run {folder.name} again"
    values = read_json(path, dict[str, Any], cure)
    try:
        return from_json(values)
    except ValueError as error:
        raise UserError(f"{path}: cannot be read ({error}); {cure}") from error


def from_json(values: Mapping[str, Any]) -> About:
    """The inverse of :meth:`About.write`; also of files of version 0.1 drafts, whose keys were sentences.

    Raises:
        ValueError: they are something else.
    """
    if "prompts" in values:
        check_type(values, _Stored)
        return About(
            values["model"],
            values["protocol"],
            dict(values["prompts"]),
            values["embedded"],
            dict(values.get("names", {})),
            tuple(values.get("forgot", ())),
        )
    check_type(values, _StoredBefore)
    check_type(values, dict[str, str | None])
    before = "prompts of kind "
    prompts = {key.removeprefix(before): text or "" for key, text in values.items() if key.startswith(before)}
    embedded = (values.get("note") or "").startswith("Numbers of the embedded model")
    return About(values["model"], values["protocol"], prompts, embedded)
