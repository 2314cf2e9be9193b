"""ESD's loss, gradient and latents are those of the release; a killed training ends as one that was not killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.work import Work
from erasebench.errors import UserError
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.methods.trained.esd import Draw, Esd, esd_loss
from erasebench.methods.trained.latents import ddim, denoised
from erasebench.methods.trained.parameters import group
from erasebench.models.targets import named_weight

SHORT = Esd(iterations=4, steps=3, lr=1e-3)


@pytest.fixture
def work(tmp_path) -> Work:
    return Work(tmp_path / "work", None, lambda done, of: None, 7, "cpu")


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def double(small_pipe):
    """A random network, and another one as its frozen original, both in float64; and two texts."""
    student, frozen = small_pipe().unet.double(), small_pipe().unet.double()
    with torch.no_grad():
        for i, parameter in enumerate(student.parameters()):
            parameter.add_(0.1 * draw(i, *parameter.shape))
    return student, frozen, draw(1, 1, 77, 24), draw(2, 1, 77, 24)


@pytest.mark.parametrize("negative_guidance", [0.0, 1.0, 2.5])
def test_loss_and_gradient_of_a_step_are_those_of_the_release(double, negative_guidance):
    model, model_orig, emb_p, emb_0 = double
    z, t_enc_ddpm = draw(3, 1, 4, 8, 8), torch.tensor([421])

    def apply_model(network, latents, timestep, condition):
        return network(latents, timestep, encoder_hidden_states=condition).sample

    # train-esd.py, line by line.
    parameters = [p for name, p in model.named_parameters() if "attn2" in name]
    criteria = torch.nn.MSELoss()
    with torch.no_grad():
        e_0 = apply_model(model_orig, z, t_enc_ddpm, emb_0)
        e_p = apply_model(model_orig, z, t_enc_ddpm, emb_p)
    e_n = apply_model(model, z, t_enc_ddpm, emb_p)
    loss = criteria(e_n, e_0 - (negative_guidance * (e_p - e_0)))
    expected = torch.autograd.grad(loss, parameters)

    ours = esd_loss(model, model_orig, z, t_enc_ddpm, emb_p, emb_0, negative_guidance)
    gradient = torch.autograd.grad(ours, list(group(model, "x").values()))
    torch.testing.assert_close(ours, loss, rtol=1e-12, atol=0)
    for a, b in zip(gradient, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)
    assert max(g.abs().max() for g in gradient) > 1e-6


@pytest.mark.parametrize("remaining", [0, 3, 9, 10])
def test_a_latent_is_denoised_by_ddim_with_guidance_until_so_many_steps_remain(double, tiny_random_pipe, remaining):
    model, _, c, empty = double
    steps, scale, x = 10, 3.0, draw(4, 1, 4, 8, 8)
    scheduler = ddim(tiny_random_pipe.scheduler.config, steps)
    ours = denoised(model, scheduler, x, c, empty, scale, remaining)
    # DDIM (Song et al., equation 12 with sigma 0) over the schedule of Stable Diffusion: 1, 101, ..., 901.
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    alpha = torch.cumprod(1 - beta, 0).double()
    for t in list(range(901, 0, -100))[: steps - remaining]:
        with torch.no_grad():
            e_0, e_c = (model(x, t, encoder_hidden_states=text).sample for text in (empty, c))
        e = e_0 + scale * (e_c - e_0)
        before = alpha[t - 100] if t > 100 else alpha[0]
        clean = (x - (1 - alpha[t]).sqrt() * e) / alpha[t].sqrt()
        x = before.sqrt() * clean + (1 - before).sqrt() * e
    torch.testing.assert_close(ours, x, rtol=1e-5, atol=1e-5)


def test_the_numbers_of_a_step_are_in_the_right_part_of_the_schedule(tiny_random_pipe):
    scheduler = ddim(tiny_random_pipe.scheduler.config, 50)
    draws = [Draw.of(5, step, ["a", "b"], Esd(), scheduler, tiny_random_pipe.unet) for step in range(300)]
    for one in draws:
        assert 20 * one.remaining <= one.timestep < 20 * (one.remaining + 1)
        assert one.noise.shape == (1, 4, 8, 8)
    assert {one.phrase for one in draws} == {"a", "b"}
    assert min(one.remaining for one in draws) < 3 and max(one.remaining for one in draws) > 46
    again = Draw.of(5, 17, ["a", "b"], Esd(), scheduler, tiny_random_pipe.unet)
    assert torch.equal(again.noise, draws[17].noise) and again.timestep == draws[17].timestep
    assert not torch.equal(draws[16].noise, draws[17].noise)


def test_what_is_trained_is_all_of_cross_attention_and_nothing_else(tiny_random_pipe, church_task, work):
    edit = SHORT.edit(tiny_random_pipe, church_task, work=work)
    parts = {name.split("attn2.")[1] for name in edit.changes}
    assert parts == {"to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias"}
    blocks = [name for name, _ in tiny_random_pipe.unet.named_modules() if name.endswith("attn2")]
    assert len(edit.changes) == 5 * len(blocks)
    for name, change in edit.changes.items():
        assert not torch.equal(change.value, named_weight(tiny_random_pipe, name)), name
    assert edit.info["trained"] is True and edit.info["phrases"] == ["church", "small chapel"]
    assert edit.info["loss"]["first"] > 0


def test_training_brings_the_network_nearer_to_its_target(tiny_random_pipe, church_task, work):
    pipe, eraser = tiny_random_pipe, replace(SHORT, iterations=40, phrases=False)
    edit = eraser.edit(pipe, church_task, work=work)
    scheduler = ddim(pipe.scheduler.config, eraser.steps)
    texts = [pipe.encode_prompt(text, "cpu", 1, False)[0].detach() for text in ("church", "")]

    def loss():
        total = 0.0
        for step in range(10):
            one = Draw.of(999, step, ["church"], eraser, scheduler, pipe.unet)
            with torch.no_grad():
                total += esd_loss(pipe.unet, frozen, one.noise, one.timestep, *texts, eraser.eta).item()
        return total

    import copy

    frozen = copy.deepcopy(pipe.unet)
    before = loss()
    with edit.applied(pipe):
        assert loss() < 0.7 * before


@pytest.mark.parametrize("kill_after", [1, 2, 3])
def test_a_training_that_was_stopped_goes_on_and_ends_in_the_same_bits(
    tiny_random_pipe, church_task, work, kill_after, tmp_path
):
    whole = SHORT.edit(tiny_random_pipe, church_task, work=work)

    def stop(done: int, of: int) -> None:
        if done == kill_after:
            raise KeyboardInterrupt

    stopped = replace(work, folder=tmp_path / "stopped", advance=stop)
    with pytest.raises(KeyboardInterrupt):
        SHORT.edit(tiny_random_pipe, church_task, work=stopped)
    steps = []
    again = SHORT.edit(
        tiny_random_pipe, church_task, work=replace(stopped, advance=lambda done, of: steps.append(done))
    )
    assert steps == list(range(kill_after + 1, 5))
    assert again.info["loss"] == whole.info["loss"]
    for name, change in whole.changes.items():
        assert torch.equal(change.value, again.changes[name].value)


def test_a_checkpoint_that_cannot_be_used_is_passed_over_with_a_warning(tiny_random_pipe, church_task, work, caplog):
    whole = SHORT.edit(tiny_random_pipe, church_task, work=work)
    path = work.folder / "checkpoint.safetensors"
    for data in (path.read_bytes()[:1000], b"", b"x" * 100):
        path.write_bytes(data)
        again = SHORT.edit(tiny_random_pipe, church_task, work=work)
        assert all(torch.equal(change.value, again.changes[name].value) for name, change in whole.changes.items())
        assert "the training begins anew" in caplog.text
        caplog.clear()


def test_another_seed_or_task_is_another_training(tiny_random_pipe, church_task, artists_task, work):
    keys = [eraser.key("m", task) for eraser in (SHORT, replace(SHORT, seed=1)) for task in (church_task, artists_task)]
    assert len(set(keys)) == 4
    values = []
    for i, seed in enumerate((7, 8)):
        edit = SHORT.edit(tiny_random_pipe, church_task, work=replace(work, folder=work.folder / str(i), seed=seed))
        values.append(next(iter(edit.changes.values())).value)
    assert not torch.equal(*values)


def test_half_precision_is_trained_in_float32_and_rounded_when_it_is_applied(small_pipe, church_task, work):
    pipe = small_pipe().to(torch.bfloat16)
    edit = SHORT.edit(pipe, church_task, work=work)
    assert {change.value.dtype for change in edit.changes.values()} == {torch.float32}
    with edit.applied(pipe) as rounding:
        assert 0 < rounding < 0.2
    assert pipe.unet.dtype == torch.bfloat16


def test_a_network_that_predicts_velocity_is_trained_too(tiny_random_sd2_pipe, church_task, work):
    assert SHORT.edit(tiny_random_sd2_pipe, church_task, work=work).changes


def test_two_trainings_in_one_edit_have_folders_and_numbers_of_their_own(tiny_random_pipe, church_task, work):
    both = Compose({"a": SHORT, "b": SHORT, "c": Uce()}, how="sum")
    assert both.trains
    edit = both.edit(tiny_random_pipe, church_task, work=work)
    assert sorted(path.parent.name for path in work.folder.rglob("*.safetensors")) == ["part0", "part1"]
    assert edit.info["trained"] is True and [part["trained"] for part in edit.info["parts"]] == [True, True, False]
    with edit.applied(tiny_random_pipe):
        pass


def test_options_that_cannot_be_are_refused():
    for wrong in ({"iterations": 0}, {"steps": 2.5}, {"lr": 0}, {"eta": -1}, {"start_guidance": float("nan")}):
        with pytest.raises(UserError, match=f"esd: {next(iter(wrong))}"):
            Esd(**wrong)


def test_killed_by_the_system_the_same_command_ends_in_the_same_edit(small_pipe, tmp_path):
    small_pipe().save_pretrained(tmp_path / "model")

    def command(store: Path) -> list[str]:
        return [
            sys.executable, "-m", "erasebench", "run", "model=folder", f"model.path={tmp_path / 'model'}", "model.name=small",
            "task=object", "task.erase=[church]", "method=esd", "method.iterations=100", "method.steps=4", "metric=[]",
            "prompts.per_erased=1",
            "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=0", "prompts.general=0",
            "protocol=embedded", "protocol.steps=2",
            "device=cpu", f"store.dir={store}",
        ]  # fmt: skip

    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), env=env, cwd=tmp_path, check=True, capture_output=True)
    process = subprocess.Popen(command(killed), env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    limit = time.monotonic() + 120
    while not list(killed.glob("work/*/checkpoint.safetensors")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(killed.glob("edits/*.safetensors"))
    again = subprocess.run(command(killed), env=env, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "of 100 steps" not in again.stderr  # it did not begin anew
    (one,), (two,) = (sorted(store.glob("edits/*.safetensors")) for store in (whole, killed))
    assert one.name == two.name
    first, second = load_file(one), load_file(two)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert not list(killed.glob("work/*"))
    whole_notes, taken_up = (json.loads(path.with_suffix(".json").read_text()) for path in (one, two))
    assert "seconds_before" not in whole_notes and 0 < taken_up["seconds_before"] < taken_up["seconds"]


def test_the_concepts_of_a_joint_task_take_turns(tiny_random_pipe, work):
    task = ErasureTask((Concept("church", "object"), Concept("tench", "object")))
    assert SHORT.edit(tiny_random_pipe, task, work=work).info["phrases"] == ["church", "tench"]
