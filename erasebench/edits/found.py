"""What an attack has found, as a value, and the hook that draws images by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from erasebench.edits.hook import Hook
from erasebench.models.pipeline import Pipeline
from erasebench.models.soft_words import padded, placed, read_with
from erasebench.recipe import Recipe, canonical_json

FOUND_FORMAT = "erasebench attack 1"
"""Header of the files of what was found."""

FORMS = ("prompt", "tokens", "embedding", "words", "latents", "seed", "tensors")
"""What an attack may find. Each takes the place of the same thing of the recipe it was found for; ``tensors`` are put in by
the attack's own hook."""


@dataclass(frozen=True, eq=False)
class Found:
    """What an attack found for one prompt: one of :data:`FORMS`.

    Attributes:
        prompt: a text in place of the recipe's.
        tokens: token ids in place of the prompt's, without BOS, EOS and padding.
        embedding: rows that the network reads in place of the prompt's, ``[positions, d]``.
        words: soft words, rows that the text encoder reads in place of tokens, ``[k, d]``: they stand where a prompt
            names one of the phrases of ``replaces``, or behind a prompt that does not. One search serves all prompts.
        latents: what sampling starts from, in the pipeline's layout, without the batch.
        seed: what the noise is drawn from, in place of the recipe's.
        tensors: by name, what the attack's own hook (:meth:`erasebench.edits.attack.Attack.hook`) puts in while sampling:
            adapters beside the layers, say.
        info: JSON-able notes: attack, settings, concepts, seconds, what the attack adds (its loss by generation).
        replaces: what ``words`` stand for.

    Raises:
        ValueError: none of them is there, or several are.
    """

    prompt: str | None = None
    tokens: tuple[int, ...] | None = None
    embedding: Tensor | None = None
    words: Tensor | None = None
    latents: Tensor | None = None
    seed: int | None = None
    tensors: Mapping[str, Tensor] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    replaces: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        there = [name for name in FORMS if getattr(self, name) is not None]
        if len(there) != 1:
            raise ValueError(f"an attack finds one of {', '.join(FORMS)}; this found {', '.join(there) or 'none'}")

    @property
    def form(self) -> str:
        """Which of :data:`FORMS` it is."""
        return next(name for name in FORMS if getattr(self, name) is not None)

    def leaves(self, recipe: Recipe) -> bool:
        """Whether it is what the recipe has already: its prompt or its seed."""
        return self.form in ("prompt", "seed") and getattr(self, self.form) == getattr(recipe, self.form)

    def to_bytes(self, key: str) -> bytes:
        """A safetensors file that holds all of it, the key and a checksum."""
        value = getattr(self, self.form)
        several = value if isinstance(value, Mapping) else {self.form: value} if isinstance(value, Tensor) else {}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in several.items()}
        said = {"key": key, "form": self.form, "value": None if tensors else value, "info": self.info}
        body = canonical_json(said | ({"replaces": self.replaces} if self.replaces else {}))
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
        value: Any = tensors if body["form"] == "tensors" else tensors.get(body["form"], body["value"])
        if body["form"] == "tokens":
            value = tuple(value)
        return cls(**{body["form"]: value}, info=body["info"], replaces=tuple(body.get("replaces", ())))


def _checksum(body: str, tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256(body.encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
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
        """The rows of the tokens, of the prompt with soft words, or the embedding, that were found; and the tokens."""
        rows = inputs["prompt_embeds"].clone()
        drawn = torch.full(rows.shape[:2], -1)
        for number, recipe in enumerate(batch):
            found = self.found.get(recipe.attack)
            if found is not None and found.embedding is not None:
                rows[number] = found.embedding.to(rows)
            elif found is not None and found.words is not None:
                encoder = pipe.text_encoder
                ids, start = placed(pipe.tokenizer, recipe.prompt, found.replaces, len(found.words))
                words = found.words[None].to(encoder.device, encoder.dtype)
                rows[number] = read_with(encoder, ids.to(encoder.device), words, start)[0].to(rows)
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
