"""Images of a small pipeline with an edit on it, for the tests of guards."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from erasebench.config.compose import compose
from erasebench.edits.edit import Edit
from erasebench.errors import UserError
from erasebench.export.export import export
from erasebench.images.generate import generate
from erasebench.images.scheduler import scheduler_identity
from erasebench.recipe import Recipe
from erasebench.run import run
from erasebench.store import Store

LEVELS = 1
"""How far a pixel may move with the batch, in levels of 255."""

KEY = "e" * 32


def recipes(
    pipe: Any, count: int = 1, guidance: float = 4.0, steps: int = 5, edit: str = KEY, prompts=()
) -> list[Recipe]:
    """Images of a small pipeline, each with a seed of its own."""
    scheduler, config = scheduler_identity(pipe, "DDIM", {})
    prompts = prompts or ["a cat", "a church by monet", "", "two dogs"]
    return [
        Recipe("m", "r", edit, prompts[i % len(prompts)], "", 2**40 + i, steps, guidance, 16, 16, scheduler, config, "float32")
        for i in range(count)
    ]  # fmt: skip


def pictures(pipe: Any, edit: Edit | None, wanted: list[Recipe], folder: Path, batch_size: int = 8) -> np.ndarray:
    """Pixels [n, height, width, 3] of images with an edit applied, or of the unedited pipeline."""
    store, model = Store(folder), SimpleNamespace(name="m", revision="r", pipe=pipe)
    if edit is None:
        generate(model, wanted, store, batch_size=batch_size)
    else:
        with Edit(edit.changes, edit.info, edit.hooks, KEY).applied(pipe):
            generate(model, wanted, store, batch_size=batch_size)
    return np.stack([np.asarray(store.image(recipe.key), dtype=int) for recipe in wanted])


def check_alone_as_in_a_batch(pipe: Any, edit: Edit, folder: Path, **options: Any) -> None:
    """Images of other prompts, guidance and steps beside it do not change one."""
    wanted = (
        recipes(pipe, 3, **options) + recipes(pipe, 3, guidance=2.5, **options) + recipes(pipe, 2, steps=3, **options)
    )
    together = pictures(pipe, edit, wanted, folder / "together")
    for recipe, picture in zip(wanted, together, strict=True):
        (alone,) = pictures(pipe, edit, [recipe], folder / recipe.key)
        assert np.abs(alone - picture).max() <= LEVELS


def check_leaves_nothing_and_comes_back(pipe: Any, edit: Edit, folder: Path, **options: Any) -> None:
    """Weights and hooks are as before bit for bit; from a file the edit makes the same image; it is no weights."""

    def state():
        networks = (pipe.unet, pipe.text_encoder, pipe.vae)
        return {
            (i, name): weight.clone() for i, part in enumerate(networks) for name, weight in part.state_dict().items()
        }

    before = state()
    again = Edit.load(edit.save(folder / "e.safetensors"))
    one, two = (
        pictures(pipe, each, recipes(pipe, **options), folder / name) for name, each in (("1", edit), ("2", again))
    )
    assert np.array_equal(one, two)
    after = state()
    assert all((weight == before[name]).all() for name, weight in after.items()) and len(after) == len(before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipe.unet.modules())
    with pytest.raises(UserError, match=f"acts while images are sampled .{edit.hooks[0].name}"):
        edit.check_weights_alone("it cannot be exported")


def judged(method: str, folder: Path, *more: str) -> pd.Series:
    """By the public command on the embedded model: the share that the judge sees, by ``none`` or ``guard``, and by
    role. Export is refused."""
    done = run(compose([
        f"method={method}", "metric=[judge]", "prompts.per_erased=4", "prompts.per_paraphrased=0", "prompts.per_near=0",
        "prompts.per_retained=2", "prompts.general=0",
        "device=cpu", f"store.dir={folder / 'results'}", *more,
    ]))  # fmt: skip
    assert done is not None
    with pytest.raises(UserError, match="acts while images are sampled"):
        export("lora", run=done.folder.name, store=str(folder / "results"))
    measured = done.measured[done.measured.metric.str.startswith("judge@")]
    row = measured.eraser.where(measured.eraser == "none", "guard")
    return measured.assign(row=row).groupby(["row", "role"]).value.mean()
