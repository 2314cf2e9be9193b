"""What a run gives an eraser that trains: a folder in the store, images of the model as it is, a bar."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from PIL.Image import Image

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Eraser, Work
from erasebench.errors import UserError
from erasebench.images.batch_size import BatchSize
from erasebench.images.generate import generate
from erasebench.images.scheduler import scheduler_identity
from erasebench.models.load import Model
from erasebench.models.marks import key_on
from erasebench.progress import progress
from erasebench.recipe import Recipe
from erasebench.store import Store


@contextmanager
def means_of(
    eraser: Eraser, key: str, task: ErasureTask, model: Model, store: Store, batch_size: int | BatchSize
) -> Iterator[Work | None]:
    """The means of one training, ``None`` for an eraser that does not train.

    The block makes the edit and stores it. When it ends without an error the checkpoints are deleted; after an error or
    a kill they stay, and the same command goes on from them.

    Args:
        eraser: who is to make the edit.
        key: of the edit; the folder is called after it.
        task: what is erased.
        model: the unedited model, loaded.
        store: where checkpoints and images are.
        batch_size: images made at a time.
    """
    if not eraser.trains:
        yield None
        return
    scheduler, config = scheduler_identity(
        model.pipe, "FlowMatchEulerDiscrete" if hasattr(model.pipe, "transformer") else "DDIM", {}
    )

    def sample(prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float) -> list[Image]:
        edit = key_on(model.pipe)
        if edit is None:
            raise UserError(
                f"eraser {eraser.name}: it needs images of the model as it is, which carries an edit without a key, so "
                "that nobody could tell what they are of; start from the unedited model"
            )
        recipes = [
            Recipe(
                model=model.name,
                revision=model.revision,
                edit=edit,
                prompt=prompt,
                negative_prompt="",
                seed=seed,
                steps=steps,
                guidance=guidance,
                width=model.size,
                height=model.size,
                scheduler=scheduler,
                scheduler_config=config,
                dtype=model.dtype,
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        generate(model, recipes, store, batch_size)
        return [store.image(recipe.key) for recipe in recipes]

    folder = store.root / "work" / key
    with ExitStack() as bar:
        shown: list[Callable[[int], None]] = []

        def advance(done: int, of: int) -> None:
            if not shown:  # a training that is taken up begins where it was
                call = bar.enter_context(progress(f"train {eraser.name} ({task.label})", of - done + 1, "steps"))
                shown.append(call)
            shown[0](1)

        yield Work(folder, sample, advance, int(key[:15], 16), model.device)
    shutil.rmtree(folder, ignore_errors=True)
