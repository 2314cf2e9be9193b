"""TRCE's second stage: its loss is that of the paper, it starts from stage 1, and trains attention alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.work import Work
from erasebench.errors import UserError
from erasebench.methods.closed_form.trce import Trce
from erasebench.methods.trained import trce
from erasebench.methods.trained.parameters import group
from erasebench.methods.trained.trce import TrceFull

SHORT = TrceFull(iterations=3, steps=4, early=2, lr=1e-4)
TASK = ErasureTask((Concept("gore", "unsafe", anchor="art"), Concept("blood", "unsafe", anchor="art")), ("tench",))


@pytest.fixture
def work(tmp_path) -> Work:
    return Work(tmp_path / "work", None, lambda done, of: None, 7, "cpu")


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_loss_and_gradient_of_a_step_are_those_of_the_paper(small_pipe, sign, beta):
    student, refined = small_pipe().unet.double(), small_pipe().unet.double()
    with torch.no_grad():
        for i, parameter in enumerate(student.parameters()):
            parameter.add_(0.1 * draw(i, *parameter.shape))
    z, kept, t = draw(1, 1, 4, 8, 8), draw(2, 4, 4, 8, 8), torch.tensor(801)
    n, u = draw(3, 1, 77, 24), draw(4, 1, 77, 24)
    near, far = 0.1 * draw(5, 1, 4, 8, 8), 3 * draw(6, 1, 4, 8, 8)
    pref, rej = (near, far)[::sign]
    parameters = list(group(student, "self+queries").values())

    # Term by term, with sums in place of means.
    expected = 0
    for text in (n, u):
        out = student(z, t, encoder_hidden_states=text).sample
        d_pref, d_rej = ((out - pref) ** 2).sum() / 256, ((out - rej) ** 2).sum() / 256
        value = beta * (d_pref - d_rej + 0.01)
        expected = expected + 0.5 * (value if value > 0 else 0)
    total = 0.01
    for k in kept:
        a = student(k[None], t, encoder_hidden_states=u).sample
        b = refined(k[None], t, encoder_hidden_states=u).sample.detach()
        total = total + ((a - b) ** 2).sum() / 256
    expected = expected + 100 * total / 4
    gradient = torch.autograd.grad(expected, parameters)

    eraser = replace(SHORT, beta=beta)
    ours = eraser.preference(student, z, t, (n, u), pref, rej) + eraser.keeping(
        student, refined, kept, t, u.expand(4, -1, -1)
    )
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=0)
    for a, b in zip(torch.autograd.grad(ours, parameters), gradient, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert max(g.abs().max() for g in gradient) > 1e-6


def test_the_edit_is_stage_1_and_trained_attention(tiny_random_pipe, work):
    edit = SHORT.edit(tiny_random_pipe, TASK, work=work)
    first = Trce().edit(tiny_random_pipe, TASK)
    trained = {f"unet.{name}" for name in group(tiny_random_pipe.unet, "self+queries")}
    assert set(edit.changes) == set(first.changes) | trained and not set(first.changes) & trained
    for name, change in first.changes.items():
        weight = tiny_random_pipe.unet.get_parameter(name.removeprefix("unet."))
        torch.testing.assert_close(edit.changes[name].of(weight), change.of(weight), rtol=0, atol=0)
    assert edit.info["pairs"] == [
        ["a photo of the gore", "a photo of the art"],
        ["a photo of the blood", "a photo of the art"],
    ]
    assert edit.info["stage1"]["method"] == "trce" and edit.info["trained"] is True
    assert any(
        not torch.equal(edit.changes[name].value, tiny_random_pipe.unet.get_parameter(name[5:])) for name in trained
    )


def test_training_starts_where_stage_1_ends_and_lowers_its_loss(tiny_random_pipe, work):
    eraser = replace(SHORT, iterations=60, keep=0.0, lr=1e-3)
    before = copy.deepcopy(tiny_random_pipe.unet.state_dict())
    info = eraser.edit(tiny_random_pipe, TASK, work=work).info
    assert sum(info["loss_curve"][-10:]) < 0.9 * sum(info["loss_curve"][:10])
    assert all(torch.equal(value, before[name]) for name, value in tiny_random_pipe.unet.state_dict().items())


def test_stopped_and_taken_up_again_it_ends_in_the_same_bits(tiny_random_pipe, work):
    whole = SHORT.edit(tiny_random_pipe, TASK, work=replace(work, folder=work.folder / "whole"))

    def stop(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SHORT.edit(tiny_random_pipe, TASK, work=replace(work, advance=stop))
    again = SHORT.edit(tiny_random_pipe, TASK, work=work)
    for name in group(tiny_random_pipe.unet, "self+queries"):
        assert torch.equal(again.changes[f"unet.{name}"].value, whole.changes[f"unet.{name}"].value)


def test_as_released_latents_are_a_step_ahead_of_their_timestep_and_gradients_add_up(
    tiny_random_pipe, work, monkeypatch
):
    asked, adds_up = {False: [], True: []}, {}
    taken = trce.denoised

    def spy(unet, scheduler, noise, text, empty, guidance, remaining):
        asked[released].append(remaining)
        return taken(unet, scheduler, noise, text, empty, guidance, remaining)

    whole = trce.train

    def look(eraser, work, parameters, loss_of, optimization):
        adds_up[released] = optimization.adds_up
        return whole(eraser, work, parameters, loss_of, optimization)

    monkeypatch.setattr(trce, "denoised", spy)
    monkeypatch.setattr(trce, "train", look)
    for released in (False, True):
        eraser = replace(SHORT, as_released=released)
        eraser.edit(tiny_random_pipe, TASK, work=replace(work, folder=work.folder / str(released)))
    assert asked[True] == [remaining - 1 for remaining in asked[False]] and min(asked[True]) >= 1
    assert adds_up == {False: False, True: True}


def test_what_stage_1_reads_is_in_the_key(tmp_path):
    captions = tmp_path / "captions.txt"
    keys = []
    for text in ("a dog on a chair", "a cat on a chair"):
        captions.write_text(text)
        keys.append(TrceFull(stage1=Trce(preserve=str(captions))).key("m", TASK))
    assert len({*keys, SHORT.key("m", TASK), TrceFull().key("m", TASK)}) == 4


def test_options_that_cannot_be_are_refused():
    for option, wrong in (
        ("early", 50),
        ("steps", 0),
        ("margin", -1),
        ("keep", float("nan")),
        ("contrast", 0),
        ("stage1", 3),
    ):
        with pytest.raises(UserError, match=f"trce_full: {option}"):
            TrceFull(**{option: wrong})
