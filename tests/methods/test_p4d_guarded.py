"""P4D through guards: its losses are the guards' formulas, and a guard that hides the gradient is refused by name."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_helpers import CHURCH, Drawn, alphas_cumprod, recipe

from erasebench.concepts import ErasureTask
from erasebench.edits.hook import hooks_on
from erasebench.methods.attacks.concept_vector import token_ids
from erasebench.methods.attacks.p4d import P4d
from erasebench.methods.attacks.p4d_guarded import P4dGuarded, filtered
from erasebench.methods.attacks.unlearndiffatk import UnlearnDiffAtk
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.methods.guards.adavd import AdaVd
from erasebench.methods.guards.negative_prompt import NegativePrompt
from erasebench.methods.guards.safree import FilteredText, Safree
from erasebench.methods.guards.sld import Sld
from erasebench.methods.trained.latents import noising

SMALL = P4dGuarded(tokens=4, every=2, iterations=4, evaluate=2)
CHURCHES = ErasureTask((CHURCH,))
G = 7.5


@pytest.fixture(scope="module")
def pipe(small_pipe):
    built = small_pipe()
    for part in (built.unet, built.text_encoder, built.vae):
        part.double()
    return built


@pytest.fixture(scope="module")
def unedited(pipe):
    return {name: copy.deepcopy(getattr(pipe, name)).requires_grad_(False) for name in ("unet", "text_encoder")}


def parts_of(pipe, chosen: list[int], seed: int):
    """By hand: noised latents, timestep, and predictions by any rows; and the rows of the found text, P4D's way of padding."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    numbers = torch.Generator().manual_seed(seed)
    t = int(torch.randint(1000, (1,), generator=numbers))
    noise = torch.randn(latents.shape, generator=numbers).double()
    left = alphas_cumprod()[t]
    z = left.sqrt() * latents + (1 - left).sqrt() * noise
    ids = [pipe.tokenizer.bos_token_id, *chosen, pipe.tokenizer.eos_token_id, *[0] * (75 - len(chosen))]

    def eps(rows):
        with torch.no_grad():
            return pipe.unet(z, t, rows).sample

    def read(text: str):
        with torch.no_grad():
            return pipe.text_encoder(token_ids(pipe, [text])).last_hidden_state

    with torch.no_grad():
        found = pipe.text_encoder(torch.tensor([ids])).last_hidden_state
    return latents, t, eps, read, found


def ours_with(pipe, unedited, edit, asked, latents, chosen, seed):
    """The loss of the search with an edit on the pipeline, and its gradient by the words."""
    _, ids = SMALL.layout(pipe.tokenizer, asked.prompt, "n")
    vocabulary = pipe.text_encoder.get_input_embeddings().weight.detach()
    words = vocabulary[torch.tensor(chosen)].requires_grad_()
    with torch.no_grad():
        wanted = unedited["text_encoder"](token_ids(pipe, [asked.prompt])).last_hidden_state
    with edit.applied(pipe):
        loss = SMALL.loss(
            pipe, unedited, asked, latents, wanted, ids, words, range(len(chosen)), noising(pipe.scheduler.config),
            torch.Generator().manual_seed(seed),
        )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss, [words])
    return loss.item(), gradient


def guided_target(eps, read, asked):
    none, own = eps(read(asked.negative_prompt)), eps(read(asked.prompt))
    return none + G * (own - none)


CHOSEN = [3, 9, 27, 4]


def test_through_a_negative_prompt_it_is_the_releases_guided_prediction(pipe, unedited) -> None:
    asked = recipe(negative_prompt="blurry", guidance=G)
    latents, _, eps, read, found = parts_of(pipe, CHOSEN, 5)
    ours, gradient = ours_with(
        pipe, unedited, NegativePrompt(text="a church").edit(pipe, CHURCHES), asked, latents, CHOSEN, 5
    )
    away = eps(read("blurry, a church"))
    guarded = away + G * (eps(found) - away)
    assert ours == pytest.approx(float(((guarded - guided_target(eps, read, asked)) ** 2).mean()), rel=1e-6)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(("preset", "seed"), [("max", 5), ("weak", 5), ("weak", 1)])
def test_through_sld_it_is_equations_6_and_4_after_the_warm_up(pipe, unedited, preset: str, seed: int) -> None:
    guard, asked = Sld(preset=preset, text="a church"), recipe(guidance=G)
    latents, t, eps, read, found = parts_of(pipe, CHOSEN, seed)
    ours, gradient = ours_with(pipe, unedited, guard.edit(pipe, CHURCHES), asked, latents, CHOSEN, seed)
    settings, none, word, bad = guard.constants, eps(read("")), eps(found), eps(read("a church"))
    scale = torch.clamp((word - bad).abs() * settings["scale"], max=1.0)
    gamma = torch.where(word - bad >= settings["threshold"], torch.zeros_like(scale), scale) * (bad - none)
    acts = (1 - t / 1000) * 50 >= settings["warmup"]
    guarded = none + G * (word - none - (gamma if acts else 0))
    assert ours == pytest.approx(float(((guarded - guided_target(eps, read, asked)) ** 2).mean()), rel=1e-6)
    assert gradient.abs().max() > 0


def literally_filtered(pipe, concepts, ids: list[int], rows: np.ndarray, alpha: float, slope: float, offset: float):
    """SAFREE's formulas one by one, float64: the filtered rows of a text, and the last step of 50."""
    with torch.no_grad():
        masked = [
            pipe.text_encoder(torch.tensor([[0 if j == i else token for j, token in enumerate(ids)]])).pooler_output[0]
            for i in range(1, len(ids) - 1)
        ]
    masked = [one.double().numpy() for one in masked]
    c, e = np.asarray(concepts, dtype=float).T, np.stack(masked).T
    away = np.eye(len(c)) - c @ np.linalg.pinv(c.T @ c, rcond=1e-8, hermitian=True) @ c.T
    inside = e @ np.linalg.pinv(e.T @ e, rcond=1e-8, hermitian=True) @ e.T
    distances = [np.linalg.norm(away @ row) for row in masked]
    made, fired = rows.copy(), False
    for i, own in enumerate(distances):
        rest = distances[:i] + distances[i + 1 :]
        if own >= (1 + alpha) * sum(rest) / len(rest):
            made[i + 1], fired = away @ inside @ rows[i + 1], True
    cosines = [
        (away @ inside @ row) @ row / np.linalg.norm(away @ inside @ row) / np.linalg.norm(row)
        for row in rows[: len(ids)]
    ]
    return made, round(10 / (1 + math.exp(-(slope * (1 - sum(cosines) / len(cosines)) - offset)))) if fired else -1


@pytest.mark.parametrize(("seed", "acts"), [(3, True), (68, True), (1, False), (5, False)])
def test_through_safree_the_network_reads_the_filtered_rows_at_its_steps(pipe, unedited, seed: int, acts: bool) -> None:
    """As released, the filter and the concept as the negative prompt, but for the paper's number of steps, five and more here. The
    timesteps are 986, 999, and two late ones."""
    asked, guard = recipe(guidance=G), Safree(variant="released", alpha=0.0, texts=("a church",))
    latents, t, eps, read, found = parts_of(pipe, CHOSEN, seed)
    released = guard.edit(pipe, CHURCHES)
    settings = {"alpha": 0.0, "slope": 1.0, "offset": 0.0}
    edit = replace(released, hooks=(FilteredText(settings, released.hooks[0].tensors), released.hooks[1]))
    concepts = edit.hooks[0].tensors["concepts"].numpy()
    ids = [pipe.tokenizer.bos_token_id, *CHOSEN, pipe.tokenizer.eos_token_id]
    rows, last = literally_filtered(pipe, concepts, ids, found[0].numpy(), 0.0, settings["slope"], settings["offset"])
    assert last >= 0 and not np.allclose(rows, found[0].numpy()), "a token leads to the concept, or this says nothing"
    ours, gradient = ours_with(pipe, unedited, edit, asked, latents, CHOSEN, seed)
    assert (last >= (1 - t / 1000) * 50) == acts
    text = torch.from_numpy(rows)[None] if acts else found
    away = eps(read("a church"))
    guarded = away + G * (eps(text) - away)
    assert ours == pytest.approx(float(((guarded - guided_target(eps, read, asked)) ** 2).mean()), rel=1e-5)
    assert gradient.abs().max() > 0


def test_a_gradient_goes_through_the_projection_of_the_rows(pipe, unedited) -> None:
    """Against differences of the loss, with all that SAFREE decides by the tokens held as it is."""
    guard = Safree(variant="released", alpha=0.0, texts=("a church",))
    ids = [pipe.tokenizer.bos_token_id, *CHOSEN, pipe.tokenizer.eos_token_id]
    rows = torch.randn(1, 6, pipe.text_encoder.config.hidden_size, generator=torch.Generator().manual_seed(0)).double()
    with guard.edit(pipe, CHURCHES).applied(pipe):
        hook = hooks_on(pipe)[0]
        assert torch.autograd.gradcheck(lambda x: filtered(hook, pipe, ids, x, 0.0), rows.requires_grad_())
        assert torch.equal(filtered(hook, pipe, ids, rows, 11.0), rows), "its filter is over by then"


@pytest.mark.parametrize(
    "guard", [NegativePrompt(), Sld(preset="max"), Safree(variant="released"), Compose(parts={"a": Uce(), "b": Sld()})]
)
def test_it_searches_through_a_guard_alters_nothing_and_goes_on_after_a_kill(pipe, unedited, tmp_path, guard) -> None:
    asked = recipe(guidance=G)

    def found(**more):
        return SMALL.find(pipe, [CHURCH], asked, Drawn(SMALL, asked, None, unedited=unedited, **more).tools)

    with guard.edit(pipe, CHURCHES).applied(pipe):
        whole = found()
        drawn = Drawn(SMALL, asked, None, unedited=unedited, folder=tmp_path)
        done: list[int] = []

        def killed(steps: int) -> None:
            done.append(steps)
            if len(done) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            SMALL.find(pipe, [CHURCH], asked, replace(drawn.tools, advance=killed))
        again = found(folder=tmp_path)
    assert again.prompt == whole.prompt and again.info["loss"] == whole.info["loss"]
    assert all(weight.grad is None for weight in pipe.unet.parameters())
    assert found().info["loss"] != whole.info["loss"], "the guard decides what is searched"


def test_what_hides_the_gradient_is_refused_by_name_and_what_it_sees_is_not() -> None:
    for guard in (NegativePrompt(), Sld(), Safree(variant="released"), Uce()):
        assert SMALL.refuses_edits(guard) is None
    reason = SMALL.refuses_edits(Safree())
    assert "hook safree_reattention acts around the network, which hides it from the gradient" in reason
    assert "through negative_prompt, sld, safree alone" in reason
    for plain in (P4d(), UnlearnDiffAtk()):
        assert "acts around the network" in plain.refuses_edits(Safree(variant="released"))
    assert (SMALL.refuses_edits(AdaVd()) is None) == (P4d().refuses_edits(AdaVd()) is None)
    assert P4d().key("m", "e", [CHURCH], recipe()) != P4dGuarded().key("m", "e", [CHURCH], recipe())
