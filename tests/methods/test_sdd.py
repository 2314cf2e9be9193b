"""SDD's loss, gradient and average are those of the release."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from training_helpers import draw, work_in

from erasebench.errors import UserError
from erasebench.methods.trained.latents import ddim
from erasebench.methods.trained.parameters import group
from erasebench.methods.trained.sdd import Sdd, sdd_loss, slice_drawn
from erasebench.models.targets import named_weight

SHORT = Sdd(iterations=4, steps=3, lr=1e-3, decay=0.5)


def test_loss_and_gradient_of_a_step_are_those_of_the_release(small_pipe):
    unet = small_pipe().unet.double()
    z, t, c_s, c_0 = draw(3, 1, 4, 8, 8), torch.tensor([421]), draw(1, 1, 77, 24), draw(2, 1, 77, 24)
    parameters = [parameter for name, parameter in unet.named_parameters() if "attn2" in name]
    # The release, in formulas: e_0 is of the student and carries no gradient.
    e_0 = unet(z, t, encoder_hidden_states=c_0).sample.detach()
    e_s = unet(z, t, encoder_hidden_states=c_s).sample
    loss = ((e_0 - e_s) ** 2).mean()
    expected = torch.autograd.grad(loss, parameters)
    ours = sdd_loss(unet, z, t, c_s, c_0)
    torch.testing.assert_close(ours, loss, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(ours, list(group(unet, "x").values())), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)
    assert max(gradient.abs().max() for gradient in expected) > 1e-6


def test_the_timestep_is_in_the_slice_of_the_schedule_behind_the_latents(tiny_random_pipe):
    scheduler = ddim(tiny_random_pipe.scheduler.config, 50)
    draws = [slice_drawn(50, scheduler, torch.Generator().manual_seed(seed)) for seed in range(400)]
    assert {remaining for remaining, _ in draws} == set(range(1, 51))
    for remaining, timestep in draws:
        assert 20 * (remaining - 1) <= timestep < 20 * remaining


def test_what_is_trained_is_all_of_cross_attention_and_nothing_else(tiny_random_pipe, church_task, tmp_path):
    edit = SHORT.edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    assert set(edit.changes) == {
        f"unet.{name}" for name, _ in tiny_random_pipe.unet.named_parameters() if ".attn2." in name
    }


def test_the_edit_is_the_average_and_not_the_student(tiny_random_pipe, church_task, tmp_path):
    """After one step the average is decay * start + (1 - decay) * student; without decay it is the student."""
    students, averages = [
        replace(SHORT, iterations=1, decay=decay).edit(
            tiny_random_pipe, church_task, work=work_in(tmp_path / str(decay))
        )
        for decay in (0.0, 0.75)
    ]
    for name, change in averages.changes.items():
        start = named_weight(tiny_random_pipe, name).detach()
        expected = 0.75 * start.double() + 0.25 * students.changes[name].value.double()
        torch.testing.assert_close(change.value.double(), expected, rtol=1e-5, atol=1e-7)


def test_a_decay_that_is_none_is_refused():
    for decay in (1.0, -0.1, float("nan")):
        with pytest.raises(UserError, match="sdd: decay"):
            Sdd(decay=decay)
