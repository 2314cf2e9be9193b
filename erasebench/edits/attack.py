"""Attacks: what looks for a way to bring an erased concept back, and what it has found.

An attack is to one prompt what an eraser is to a task: it looks for something, and what it found is a value that is
kept under the hash of all that decides it. So the name of an attacked image is known before the attack has run.
"""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from erasebench.concepts import Concept
from erasebench.edits.eraser import settings_of
from erasebench.edits.hook import Hook
from erasebench.edits.unaltered import unaltered
from erasebench.errors import UserError
from erasebench.models.pipeline import Pipeline
from erasebench.recipe import Recipe, canonical_json

if TYPE_CHECKING:
    from erasebench.models.load import Model

FOUND_FORMAT = "erasebench attack 1"
"""Header of the files of what was found."""

FORMS = ("prompt", "tokens", "embedding", "latents", "seed")
"""What an attack may find. Each takes the place of the same thing of the recipe it was found for."""


@dataclass(frozen=True, eq=False)
class Found:
    """What an attack found for one prompt: one of :data:`FORMS`.

    Attributes:
        prompt: a text in place of the recipe's.
        tokens: token ids in place of the prompt's, without BOS, EOS and padding.
        embedding: rows that the network reads in place of the prompt's, ``[positions, d]``.
        latents: what sampling starts from, in the pipeline's layout, without the batch.
        seed: what the noise is drawn from, in place of the recipe's.
        info: JSON-able notes: attack, settings, concepts, seconds, what the attack adds (its loss by generation).

    Raises:
        ValueError: none of them is there, or several are.
    """

    prompt: str | None = None
    tokens: tuple[int, ...] | None = None
    embedding: Tensor | None = None
    latents: Tensor | None = None
    seed: int | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        there = [name for name in FORMS if getattr(self, name) is not None]
        if len(there) != 1:
            raise ValueError(f"an attack finds one of {', '.join(FORMS)}; this found {', '.join(there) or 'none'}")

    @property
    def form(self) -> str:
        """Which of :data:`FORMS` it is."""
        return next(name for name in FORMS if getattr(self, name) is not None)

    def to_bytes(self, key: str) -> bytes:
        """A safetensors file that holds all of it, the key and a checksum."""
        value = getattr(self, self.form)
        tensors = {self.form: value.detach().cpu().contiguous()} if isinstance(value, Tensor) else {}
        body = canonical_json({"key": key, "form": self.form, "value": None if tensors else value, "info": self.info})
        header = {"format": FOUND_FORMAT, "body": body, "sha256": _checksum(body, tensors)}
        return safetensors.torch.save(tensors, metadata=header)

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> Found:
        """The inverse of :meth:`to_bytes`.

        Raises:
            ValueError: cut, altered, of another key, or not what an attack found.
        """
        try:
            tensors = safetensors.torch.load(data)
            size = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"not a whole safetensors file: {error}") from error
        if header.get("format") != FOUND_FORMAT:
            raise ValueError("not what an attack of erasebench found")
        if header.get("sha256") != _checksum(header.get("body", ""), tensors):
            raise ValueError("its content is not what was saved")
        body = json.loads(header["body"])
        if body["key"] != key:
            raise ValueError(f"it was found for another key, {body['key']}")
        value = tensors.get(body["form"], body["value"])
        if body["form"] == "tokens":
            value = tuple(value)
        return cls(**{body["form"]: value}, info=body["info"])


def _checksum(body: str, tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256(body.encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


class Replace(Hook):
    """Draws images by what attacks found for them. Images that were not attacked are left as they are.

    Args:
        found: by attack key (:attr:`erasebench.recipe.Recipe.attack`).
    """

    name = "attack"

    def __init__(self, found: Mapping[str, Found]) -> None:
        super().__init__()
        self.found = dict(found)

    def holds(self, attack: str) -> bool:
        """Whether it was given what was found under this key."""
        return attack in self.found

    def drawn_as(self, recipe: Recipe) -> Recipe:
        """The recipe with the prompt or the seed that was found for it."""
        found = self.found.get(recipe.attack)
        if found is None or found.form not in ("prompt", "seed"):
            return recipe
        return replace(recipe, **{found.form: getattr(found, found.form)})

    def texts(self, pipe: Pipeline, inputs: dict[str, Tensor], batch: Sequence[Recipe]) -> dict[str, Tensor]:
        """The rows of the tokens, or the embedding, that were found; and the tokens."""
        rows = inputs["prompt_embeds"].clone()
        drawn = torch.full(rows.shape[:2], -1)
        for number, recipe in enumerate(batch):
            found = self.found.get(recipe.attack)
            if found is not None and found.embedding is not None:
                rows[number] = found.embedding.to(rows)
            elif found is not None and found.tokens is not None:
                ids = padded(pipe.tokenizer, torch.tensor([found.tokens])).to(pipe.text_encoder.device)
                rows[number] = pipe.text_encoder(ids).last_hidden_state[0].to(rows)
                drawn[number] = ids[0]
        return inputs | {"prompt_embeds": rows, "prompt_ids": drawn}

    def start(self, pipe: Pipeline, latents: Tensor, batch: Sequence[Recipe]) -> Tensor:
        """The latents that were found."""
        latents = latents.clone()
        for number, recipe in enumerate(batch):
            found = self.found.get(recipe.attack)
            if found is not None and found.latents is not None:
                latents[number] = found.latents.to(latents)
        return latents


def padded(tokenizer: Any, tokens: Tensor) -> Tensor:
    """Token ids ``[n, k]`` between BOS and EOS, padded as the tokenizer pads: ``[n, positions]``."""
    n, k = tokens.shape
    ids = torch.full((n, tokenizer.model_max_length), tokenizer.pad_token_id)
    ids[:, 0], ids[:, k + 1] = tokenizer.bos_token_id, tokenizer.eos_token_id
    ids[:, 1 : k + 1] = tokens
    return ids


class Attack(ABC):
    """A way to look for what brings a concept back. Subclasses are frozen dataclasses, one plain typed field an option.

    An attack implements :meth:`look`; the caller uses :meth:`find`. It must not alter the pipeline. Its budget is
    among its options, so that a longer search is another attack.

    Class attributes:
        name: short and unique, as in tables.
        version: raised when the same input would find something else.
        describe: one line for ``erasebench list attacks``.
        access: what it must be given of a model, as people say it: ``text encoder``, ``weights``, ``nothing``.
        adaptive: it looks at the edited model. An attack that does not is run once, on the unedited model, and what it
            found is tried on every edit (a transfer attack).
        inputs: the fields of a recipe that decide what is found; empty for all.
        unsupported: families of models that it cannot attack, and why.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    describe: ClassVar[str] = ""
    access: ClassVar[str]
    adaptive: ClassVar[bool] = True
    inputs: ClassVar[tuple[str, ...]] = ()
    unsupported: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def look(
        self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, advance: Callable[[int], None]
    ) -> Found:
        """Look for one prompt.

        Args:
            pipe: the pipeline with the edit applied, if the attack is adaptive; else unedited. Not to be altered.
            concepts: what the image should show: the concepts that the task erases and the prompt asks for.
            recipe: the image without the attack.
            advance: called with a number of steps done, :attr:`steps` in all.

        Returns:
            What was found; its ``info`` holds what is worth knowing of the search.
        """

    def find(
        self,
        pipe: Pipeline,
        concepts: Sequence[Concept],
        recipe: Recipe,
        advance: Callable[[int], None] = lambda steps: None,
    ) -> Found:
        """:meth:`look`, with notes of who looked for what and how long it took.

        Raises:
            UserError: it failed (the error is named), or altered the pipeline.
        """
        names = ", ".join(concept.name for concept in concepts)
        try:
            with unaltered(pipe, f"attack {self.name}", f"a search for {names}"):
                began = time.perf_counter()
                result = self.look(pipe, concepts, recipe, advance)
                seconds = time.perf_counter() - began
        except UserError:
            raise
        except Exception as error:  # any: what an attack does inside is its own; the cause stays attached
            raise UserError(
                f"attack {self.name} failed on prompt {recipe.prompt!r} ({names}): {type(error).__name__}: {error}"
            ) from error
        notes = {
            "attack": self.name,
            "version": self.version,
            "access": self.access,
            "adaptive": self.adaptive,
            "settings": self.settings,
            "concepts": [concept.name for concept in concepts],
            "for": {name: recipe.to_dict()[name] for name in self.inputs} if self.inputs else recipe.to_dict(),
            "seconds": seconds,
            **result.info,
        }
        return replace(result, info=json.loads(json.dumps(notes)))

    def hook(self, found: Mapping[str, Found]) -> Hook:
        """What draws images by what was found, for :func:`erasebench.images.generate.generate`.

        Args:
            found: by attack key.
        """
        return Replace(found)

    def refuses(self, model: Model) -> str | None:
        """Why it cannot attack a loaded model, or ``None`` if it can."""
        return self.unsupported.get(model.family)

    @property
    def steps(self) -> int:
        """How many steps :meth:`look` reports."""
        return 1

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values."""
        return settings_of(self)

    def key(self, model_identity: str, edit_key: str, concepts: Sequence[Concept], recipe: Recipe) -> str:
        """Hash of all that decides what is found. 32 hex digits.

        Args:
            model_identity: of the unedited model.
            edit_key: of the edit that is attacked; ``""`` for the unedited model. It counts if the attack is adaptive.
            concepts: as :meth:`look` gets them.
            recipe: the image without the attack; its :attr:`inputs` count.
        """
        values = recipe.to_dict()
        decides = {name: values[name] for name in self.inputs or values if name not in ("edit", "attack")}
        text = json.dumps(
            [
                *(self.name, self.version, self.settings, model_identity, edit_key if self.adaptive else ""),
                *([asdict(concept) for concept in concepts], decides),
            ],
            sort_keys=True,
        )
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def attacked_concepts(targets: Sequence[Concept], label: str) -> tuple[Concept, ...]:
    """The concepts that an attack on a prompt goes for: the one it asks for, or all where its label is none of them."""
    return tuple(target for target in targets if target.name.casefold() == label.casefold()) or tuple(targets)
