"""Hooks: what an edit or an attack does while images are sampled, as a value of settings and tensors, never of code."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import walk_packages
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from erasebench.errors import UserError
from erasebench.models.pipeline import Pipeline

if TYPE_CHECKING:
    from erasebench.recipe import Recipe

_HOOKS = "_erasebench_hooks"

_KINDS: dict[str, type[Hook]] = {}
"""The subclasses that have been defined in this process, by name."""

PLUGINS = "erasebench.methods"
"""Where the hooks that come with the package are defined."""


@dataclass(eq=False)
class Hook(ABC):
    """What acts while images are sampled. A subclass overrides the methods it needs; all others change nothing.

    A hook must treat every image of a batch as if it were alone: what it does to one may not depend on the others.
    While it is installed it may keep what the batch at hand needs (e.g. a strength for each row).

    Attributes:
        settings: JSON values.
        tensors: by name, on the CPU.

    Class attributes:
        name: short and unique; an edit's file names its hooks by it (:func:`hook_class`).
        version: raised when the same settings and tensors would give another image.
        passes: rows that go through the denoiser for each image besides the usual ones (one, and one more with
            guidance). Fewer images then share a batch.
        second_pass: whether it acts on the second, unconditional pass, so that without guidance it would do nothing.
            Such images are refused.
        places: what it takes for itself, in words (``the negative prompt``); two hooks with one place are never on a
            pipeline together (:func:`check_places`). Empty: it goes beside any other.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    passes: ClassVar[int] = 0
    second_pass: ClassVar[bool] = False
    places: ClassVar[tuple[str, ...]] = ()

    settings: dict[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            return
        other = _KINDS.get(cls.name)
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"{cls.__qualname__}: a hook called {cls.name!r} is already in {other.__module__}")
        _KINDS[cls.name] = cls

    def installed(self, pipe: Pipeline) -> AbstractContextManager[None]:
        """Put adapters, processors or forward hooks into a pipeline for a ``with`` block, and take them out again.

        Raises:
            UserError: the pipeline is not one that the hook was made for.
        """
        return nullcontext()

    def drawn_as(self, recipe: Recipe) -> Recipe:
        """The recipe whose prompt and seed are taken in place of a recipe's own; the rest of it must be the same."""
        return recipe

    def holds(self, attack: str) -> bool:
        """Whether it draws what was found under an attack's key; without such a hook no attacked image is made."""
        return False

    def texts(self, pipe: Pipeline, inputs: dict[str, Tensor], batch: Sequence[Recipe]) -> dict[str, Tensor]:
        """Change the texts that a batch is sampled with; called once before each batch, without gradients.

        Args:
            pipe: the pipeline, with the edit applied.
            inputs: what the pipeline is given: ``prompt_embeds`` [n, positions, d]; with guidance by a second pass
                also ``negative_prompt_embeds``; for all but SD 1.x and 2.x ``pooled_prompt_embeds`` [n, p] and, with
                guidance, ``negative_pooled_prompt_embeds``. Not for the pipeline: ``prompt_ids`` [n, positions], where
                an attack drew token ids in place of prompts (-1 in the rows of the others). The tensors are not to be
                changed in place.
            batch: the recipes of the n images.
        """
        return inputs

    def start(self, pipe: Pipeline, latents: Tensor, batch: Sequence[Recipe]) -> Tensor:
        """Change the latents that a batch starts from, in the pipeline's own type and layout [n, ...]."""
        return latents

    def on_step(self, pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Change the latents after a step; diffusers' ``callback_on_step_end``.

        Args:
            pipe: the pipeline, with the edit applied.
            step: 0 for the first.
            timestep: the scheduler's, a tensor of no dimension.
            tensors: ``latents`` [n, ...] after the step.
        """
        return tensors

    def images(self, pipe: Pipeline, images: np.ndarray, batch: Sequence[Recipe]) -> np.ndarray:
        """Change the finished images of a batch, [n, height, width, 3] float32, 0 to 1 (beyond, or NaN, where the model
        broke down: what becomes of such an image does not count, it is never saved)."""
        return images


def hook_class(name: str) -> type[Hook] | None:
    """The class of the hooks of a name, or ``None`` if there is none.

    It is looked for among the subclasses of :class:`Hook` that this process has already imported (a plugin of the
    command line among them) and those below :data:`PLUGINS`. Nothing is imported by the name asked for: it may come
    from somebody else's file.
    """
    if name not in _KINDS:
        for module in walk_packages(import_module(PLUGINS).__path__, f"{PLUGINS}."):
            with suppress(ImportError):  # of a method whose extra is not installed
                import_module(module.name)
    return _KINDS.get(name)


def check_places(hooks: Sequence[Hook | type[Hook]]) -> None:
    """Refuse hooks, or kinds of hooks, of which two take the same place: the later one would undo or misread what the
    earlier one did.

    Raises:
        UserError: naming both and the place.
    """
    taken: dict[str, str] = {}
    for hook in hooks:
        for place in hook.places:
            if place in taken:
                raise UserError(
                    f"{taken[place]} and {hook.name} both act on {place}, and cannot be on one model together; "
                    "compose one of them with methods that act elsewhere, e.g. with an edit of the weights"
                )
            taken[place] = hook.name


def hooks_on(pipe: Pipeline) -> tuple[Hook, ...]:
    """The hooks that edits have put on a pipeline, the first one applied first."""
    return getattr(pipe, _HOOKS, ())


@contextmanager
def put_on(hooks: Sequence[Hook], pipe: Pipeline) -> Iterator[None]:
    """Install hooks for a ``with`` block and let the pipeline remember them, so that whoever samples with it calls
    them (:func:`hooks_on`).

    Raises:
        UserError: two of them, or one and a hook that is there, take the same place (:func:`check_places`).
    """
    before = hooks_on(pipe)
    check_places((*before, *hooks))
    with all_installed(hooks, pipe):
        setattr(pipe, _HOOKS, (*before, *hooks))
        try:
            yield
        finally:
            setattr(pipe, _HOOKS, before)


@contextmanager
def all_installed(hooks: Sequence[Hook], pipe: Pipeline) -> Iterator[None]:
    """Install hooks in order for a ``with`` block; they are taken out in the reverse order."""
    with ExitStack() as stack:
        for hook in hooks:
            stack.enter_context(hook.installed(pipe))
        yield
