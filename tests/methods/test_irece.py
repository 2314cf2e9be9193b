"""IRECE disturbs latents where the unedited network looks for the concept, for its steps, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from guard_helpers import KEY, check_alone_as_in_a_batch, check_leaves_nothing_and_comes_back, pictures, recipes
from hypothesis import given
from hypothesis import strategies as st

from erasebench.concepts import Concept, ErasureTask
from erasebench.config.compose import compose
from erasebench.edits.edit import Edit
from erasebench.errors import UserError
from erasebench.methods.attacks.p4d import P4d
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.methods.guards.irece import Disturbed, Irece, spread_alike
from erasebench.methods.guards.safree import Safree
from erasebench.methods.guards.sld import Sld
from erasebench.methods.trained.attention import recorded_attention
from erasebench.models.marks import originals_on
from erasebench.prompts.prompt_set import hashed_seed

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

TASK = ErasureTask((Concept("church", "object", ("church", "chapel")),))


def moved(pipe, guard: Irece, wanted, step: int, latents: torch.Tensor, edits=()) -> torch.Tensor:
    """Latents after a step, by the guard, with any edits of weights on the pipeline."""
    whole = Compose(parts={str(number): part for number, part in enumerate((*edits, guard))})
    pipe.scheduler.set_timesteps(wanted[0].steps)
    pipe._num_timesteps = wanted[0].steps
    edit = whole.edit(pipe, TASK)
    with edit.applied(pipe):
        hook = edit.hooks[-1]
        hook.texts(pipe, {}, wanted)
        return hook.on_step(pipe, step, pipe.scheduler.timesteps[step], {"latents": latents})["latents"]


def literally(pipe, guard: Irece, wanted, step: int, latents: torch.Tensor) -> np.ndarray:
    """Number by number, with the unedited pipeline."""
    timestep = int(pipe.scheduler.timesteps[step + 1])
    sigma = np.sqrt(1 - float(pipe.scheduler.alphas_cumprod[timestep]))
    n, channels, height, width = latents.shape
    found = np.zeros((n, height, width), dtype=bool)
    for text in guard.texts or [target.name for target in TASK.targets]:
        ids = pipe.tokenizer(text, padding="max_length").input_ids
        count = len(pipe.tokenizer(text, add_special_tokens=False).input_ids)
        with torch.no_grad(), recorded_attention(pipe.unet) as maps:
            rows = pipe.text_encoder(torch.tensor([ids])).last_hidden_state
            pipe.unet(latents, timestep, rows.expand(n, -1, -1))
        finest = max(one.shape[1] for one in maps.values())
        layers = [one.numpy() for one in maps.values() if one.shape[1] == finest]
        side = int(finest**0.5)
        assert side == height, "the masks need no enlarging here"
        for image in range(n):
            total = np.zeros((side, side))
            for layer in layers:
                heads = len(layer) // n
                for head in range(heads):
                    for token in range(1, 1 + count):
                        total += layer[image * heads + head, :, token].reshape(side, side)
            found[image] |= (total - total.min()) / (total.max() - total.min()) >= guard.threshold
    made = latents.numpy().copy()
    for image in range(n):
        numbers = torch.Generator().manual_seed(
            hashed_seed("irece", guard.seed, wanted[image].prompt, wanted[image].seed, step)
        )
        noise = torch.randn(channels, height, width, generator=numbers).numpy()
        mask = found[image]
        made[image, :, mask] += guard.strength * sigma * noise[:, mask].T
        inside, outside = made[image][:, mask], made[image][:, ~mask]
        made[image][:, mask] = inside.mean() + (inside - inside.mean()) * outside.std(ddof=1) / inside.std(ddof=1)
    return made


@pytest.mark.parametrize("texts", [None, ("church", "a small dog")])
def test_it_is_the_formula_number_by_number_also_where_the_weights_are_edited(tiny_random_pipe, texts) -> None:
    pipe, guard = tiny_random_pipe, Irece(texts=texts, strength=0.7)
    wanted = recipes(pipe, 2, steps=10)
    size = pipe.unet.config.sample_size
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    assert size and latents.shape[2] == 8
    pipe.scheduler.set_timesteps(10)
    expected = literally(pipe, guard, wanted, 2, latents)
    assert not np.allclose(expected, latents.numpy()) and (expected == latents.numpy()).any()
    for edits in ((), (Uce(),)):
        made = moved(pipe, guard, wanted, 2, latents, edits).numpy()
        np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)
        assert ((made == latents.numpy()) == (expected == latents.numpy())).all(), "elsewhere nothing moves"


@pytest.mark.parametrize(("step", "acts"), [(0, True), (4, True), (5, False), (9, False)])
def test_it_acts_up_to_its_share_of_the_steps(tiny_random_pipe, step: int, acts: bool) -> None:
    """20 of 50 is 4 of 10."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    made = moved(tiny_random_pipe, Irece(), recipes(tiny_random_pipe, 1, steps=10), step, latents)
    assert torch.equal(made, latents) is not acts


def test_where_latents_are_kept_larger_than_they_are_read_so_is_the_noise(tiny_random_pipe) -> None:
    from diffusers import EulerDiscreteScheduler

    pipe, wanted = tiny_random_pipe, recipes(tiny_random_pipe, 1, steps=10)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    plain = moved(pipe, Irece(), wanted, 2, latents)
    before = pipe.scheduler
    try:
        pipe.scheduler = EulerDiscreteScheduler.from_config(before.config, timestep_spacing="leading")
        pipe.scheduler.set_timesteps(10)
        pipe.scheduler._step_index = 3
        sigma = float(pipe.scheduler.sigmas[3])
        scale = (sigma**2 + 1) ** 0.5
        set_again = pipe.scheduler.set_timesteps
        pipe.scheduler.set_timesteps = lambda steps: (set_again(steps), setattr(pipe.scheduler, "_step_index", 3))
        made = moved(pipe, Irece(), wanted, 2, latents * scale)
        assert int(pipe.scheduler.timesteps[3]) == int(before.timesteps[3])
    finally:
        pipe.scheduler = before
    torch.testing.assert_close(made / scale, plain, rtol=1e-3, atol=1e-3)


@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_the_disturbed_elements_spread_as_the_others_and_those_stay(seed: int, share: float) -> None:
    numbers = torch.Generator().manual_seed(seed)
    latents = torch.randn(4, 6, 5, generator=numbers, dtype=torch.float64) * 3 + 1
    mask = torch.rand(6, 5, generator=numbers) < share
    made = spread_alike(latents, mask)
    assert torch.equal(made[:, ~mask], latents[:, ~mask])
    if mask.any() and not mask.all():
        assert made[:, mask].std().item() == pytest.approx(latents[:, ~mask].std().item())
        assert made[:, mask].mean().item() == pytest.approx(latents[:, mask].mean().item())
    else:
        assert torch.equal(made, latents), "where there is nothing to compare with"


def test_the_weights_before_all_edits_are_known_while_they_are_on(tiny_random_pipe) -> None:
    pipe, edits = tiny_random_pipe, [Uce(), Uce(anchor="a dog")]
    one = edits[0].edit(pipe, TASK)
    before = {name: weight.clone() for name, weight in pipe.unet.named_parameters()}
    with one.applied(pipe):
        two = edits[1].edit(pipe, TASK, composing=True)
        with two.applied(pipe):
            kept = originals_on(pipe)
            assert kept.keys() == one.changes.keys() | two.changes.keys()
            assert all(torch.equal(weight, before[name.removeprefix("unet.")]) for name, weight in kept.items())
        assert originals_on(pipe).keys() == one.changes.keys()
    assert not originals_on(pipe)


def test_an_image_is_changed_and_what_else_is_in_the_batch_does_not_change_it(tiny_random_pipe, tmp_path) -> None:
    edit = Irece(strength=2.0).edit(tiny_random_pipe, TASK)
    wanted = recipes(tiny_random_pipe, 2)
    plain = pictures(tiny_random_pipe, Edit({}, {"method": "x"}, (), KEY), wanted, tmp_path / "plain")
    assert not np.array_equal(pictures(tiny_random_pipe, edit, wanted, tmp_path / "guarded"), plain)
    check_alone_as_in_a_batch(tiny_random_pipe, edit, tmp_path)


@pytest.mark.parametrize("other", [None, Uce(), Safree(), Sld()], ids=str)
def test_beside_an_edit_or_another_guard_it_leaves_nothing_and_comes_back(tiny_random_pipe, tmp_path, other) -> None:
    guard = Irece()
    whole = Compose(parts={"a": other, "b": guard}) if other else guard
    edit = whole.edit(tiny_random_pipe, TASK)
    check_leaves_nothing_and_comes_back(tiny_random_pipe, edit, tmp_path)


def test_what_cannot_be_is_refused(tiny_random_pipe) -> None:
    for options, message in (
        ({"strength": 0}, "strength is 0"), ({"strength": float("nan")}, "strength is nan"),
        ({"threshold": 1.1}, "threshold is 1.1"), ({"until": 51}, "until is 51"), ({"texts": ()}, "texts has none"),
        ({"texts": (" ",)}, "texts has none, or an empty one"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"irece: {message}"):
            Irece(**options)
    with pytest.raises(UserError, match="both act on the latents between steps"):
        Compose(parts={"a": Irece(), "b": Irece()})
    assert "its hook irece acts around the network" in P4d().refuses_edits(Irece())
    assert {"sdxl", "sd3", "flux"} == set(Irece.unsupported)


def test_by_its_config_it_goes_with_an_edit_of_the_weights() -> None:
    parts = compose(["method=uce_irece"]).method.parts
    assert parts.first._target_.endswith("Uce") and parts.second == compose(["method=irece"]).method
    values = {name: value for name, value in compose(["method=irece"]).method.items() if name != "_target_"}
    assert Irece(**values) == Irece() and Irece().acts() == (Disturbed,)
