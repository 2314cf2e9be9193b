"""The loop that every trained eraser runs through: what it refuses, keeps, records, and takes up again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn import Parameter
from training_helpers import assert_resumes

from erasebench.edits.work import Work
from erasebench.errors import UserError
from erasebench.methods.trained.attention import recorded_attention
from erasebench.methods.trained.esd import Draw, Esd
from erasebench.methods.trained.examples import example_latents, token_columns
from erasebench.methods.trained.few_shot import FewShot
from erasebench.methods.trained.latents import ddim, encoded, noising, target_of
from erasebench.methods.trained.parameters import GROUPS, group
from erasebench.methods.trained.sdd import Sdd
from erasebench.methods.trained.spm import Spm
from erasebench.methods.trained.training import CURVE, Optimization, TrainedEraser, check_memory, curve, train
from erasebench.models.load import load_model


@dataclass(frozen=True, kw_only=True)
class Line(TrainedEraser):
    name: ClassVar[str] = "line"
    iterations: int = 20
    lr: float = 0.1


@pytest.fixture
def work(tmp_path) -> Work:
    return Work(tmp_path / "work", None, lambda done, of: None, 7, "cpu")


def parameter(*values: float) -> Parameter:
    return Parameter(torch.tensor(values))


@pytest.mark.parametrize("adam", [torch.optim.Adam, torch.optim.AdamW])
def test_steps_are_those_of_the_optimizer(work, adam):
    ours, theirs = parameter(1.0, -2.0), parameter(1.0, -2.0)
    options = {"weight_decay": 0.1, "betas": (0.9, 0.98)}
    train(
        Line(), work, {"x": ours}, lambda step: (ours**4).sum(),
        Optimization(adam, options, clip=0.5, rate=lambda step: 1 / (1 + step)),
    )  # fmt: skip
    optimizer = adam([theirs], lr=0.1, **options)
    for step in range(20):
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        optimizer.zero_grad()
        (theirs**4).sum().backward()
        norm = theirs.grad.norm()
        if norm > 0.5:
            theirs.grad *= 0.5 / (norm + 1e-6)
        optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kill_after", [0, 7])
def test_gradients_that_add_up_are_those_of_all_steps_so_far(work, kill_after):
    def loss_of(x, step):
        return (x * (1 + step % 3)).square().sum()

    theirs = parameter(1.0, -2.0)
    optimizer = torch.optim.Adam([theirs], lr=0.1)
    for step in range(20):
        loss_of(theirs, step).backward()  # and never zero_grad
        optimizer.step()

    def stop(done: int, of: int) -> None:
        if done == kill_after:
            raise KeyboardInterrupt

    ours = parameter(1.0, -2.0)
    optimization = Optimization(adds_up=True)
    if kill_after:
        with pytest.raises(KeyboardInterrupt):
            train(Line(), replace(work, advance=stop), {"x": ours}, lambda step: loss_of(ours, step), optimization)
        ours = parameter(5.0, 5.0)
    train(Line(), work, {"x": ours}, lambda step: loss_of(ours, step), optimization)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_what_is_kept_goes_into_checkpoints_and_comes_back(work, monkeypatch):
    clock = iter(range(1000))  # looked at once when a training begins, and once a step
    monkeypatch.setattr("erasebench.methods.trained.training.time.perf_counter", lambda: float(next(clock)))

    def run(where: Work) -> tuple[torch.Tensor, torch.Tensor, dict]:
        x, average = parameter(3.0), torch.tensor([3.0])
        notes = train(
            Line(), where, {"x": x}, lambda step: (x * (1 + step % 3)).square().sum(), Optimization(),
            kept={"average": average}, after=lambda step: average.lerp_(x.detach(), 0.1),
        )  # fmt: skip
        return x.detach(), average, notes

    whole = run(work)

    def stop(done: int, of: int) -> None:
        if done == 11:
            raise KeyboardInterrupt

    other = replace(work, folder=work.folder / "other")
    with pytest.raises(KeyboardInterrupt):
        run(replace(other, advance=stop))
    again = run(other)
    assert (
        torch.equal(again[0], whole[0])
        and torch.equal(again[1], whole[1])
        and again[2] == whole[2] | {"seconds_before": 11.0}
    )
    assert whole[1] != whole[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e9])
def test_a_training_that_diverges_is_stopped_and_keeps_its_last_good_checkpoint(work, bad):
    x = parameter(1.0)

    def loss(step: int) -> torch.Tensor:
        return (x * (bad if step == 15 else 1.0)).sum().abs()

    with pytest.raises(UserError, match=r"line: the training diverged at step 16 of 20.*smaller lr than 0.1"):
        train(Line(), work, {"x": x}, loss, Optimization())
    steps = []
    with pytest.raises(UserError, match="step 16 of 20"):
        train(
            Line(),
            replace(work, advance=lambda done, of: steps.append(done)),
            {"x": parameter(1.0)},
            loss,
            Optimization(),
        )
    assert not steps  # it went on from step 15, and diverged again at once


def test_a_gradient_that_is_not_finite_is_divergence_too(work):
    x = parameter(0.0)
    with pytest.raises(UserError, match="diverged at step 1 of 20"):
        train(Line(), work, {"x": x}, lambda step: x.sqrt().sum(), Optimization())


def test_a_training_of_nothing_is_refused(work):
    with pytest.raises(UserError, match="no parameter of this model is trained"):
        train(Line(), work, {}, lambda step: torch.zeros(()), Optimization())
    with pytest.raises(UserError, match="its loss depends on nothing that it trains"):
        train(Line(), work, {"x": parameter(1.0)}, lambda step: torch.ones(()), Optimization())
    x, y = parameter(1.0), parameter(1.0)
    with pytest.raises(UserError, match="does not depend on 1 of the 2 parameters.*y"):
        train(Line(), work, {"x": x, "y": y}, lambda step: x.sum(), Optimization())


def test_the_notes_hold_the_curve_of_the_loss_and_how_much_was_trained(work):
    x = parameter(1.0, 1.0)
    notes = train(Line(), work, {"x": x}, lambda step: x.square().sum(), Optimization())
    assert notes["trained_parameters"] == 2 and len(notes["loss_curve"]) == 20
    assert notes["loss"] == {"first": 2.0, "last": pytest.approx(notes["loss_curve"][-1], rel=1e-3)}


@pytest.mark.parametrize("steps", [1, 199, 200, 201, 1000, 1999])
def test_a_long_curve_is_thinned_by_means(steps):
    losses = [float(step) for step in range(steps)]
    points = curve(losses)
    assert len(points) <= CURVE and points == sorted(points)
    width = -(-steps // CURVE)
    assert points[0] == pytest.approx((width - 1) / 2, abs=1e-3)


def test_options_out_of_range_are_refused():
    for wrong in (
        {"iterations": 0}, {"iterations": 1.5}, {"lr": 0}, {"lr": math.nan}, {"precision": "float16"}, {"accumulate": 0},
        {"optimizer": "sgd"},
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"line: {next(iter(wrong))}"):
            Line(**wrong)


@pytest.mark.parametrize("eraser", [Esd(), Sdd()])
@pytest.mark.parametrize("fits", [False, True])
def test_the_memory_of_a_training_is_counted_in_copies_gradients_and_moments(
    tiny_random_pipe, church_task, monkeypatch, eraser, fits
):
    """Four bytes a parameter of a copy, twelve a trained one."""
    unet = tiny_random_pipe.unet
    everything = sum(parameter.numel() for parameter in unet.parameters())
    trained = sum(parameter.numel() for name, parameter in unet.named_parameters() if "attn2" in name)
    needed = 4 * everything * (2 if eraser.name == "sdd" else 1) + 12 * trained

    class Memory:
        available = needed if fits else needed - 1

    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory)
    if fits:
        eraser.check(tiny_random_pipe, church_task)
    else:
        with pytest.raises(UserError, match=rf"{eraser.name}: training needs at least .* GiB .* are free on cpu"):
            eraser.check(tiny_random_pipe, church_task)


def test_the_memory_of_a_training_is_counted_by_its_numbers(tiny_random_pipe):
    unet, encoder = tiny_random_pipe.unet, tiny_random_pipe.text_encoder
    network = sum(parameter.numel() for parameter in unet.parameters())
    texts = sum(parameter.numel() for parameter in encoder.parameters())
    attention = sum(parameter.numel() for name, parameter in unet.named_parameters() if "attn2" in name)
    # Bytes of float32: each copy, and for what is trained a gradient and Adam's two moments.
    assert Esd(train="full").memory(tiny_random_pipe) == 16 * network
    assert Esd(train="x").memory(tiny_random_pipe) == 4 * network + 12 * attention
    sides = sum(sum(p.shape) if p.ndim == 2 else p.numel() for name, p in unet.named_parameters() if "attn2" in name)
    assert Esd(train="x", optimizer="adafactor").memory(tiny_random_pipe) == 4 * (network + attention + sides)
    assert Sdd(train="x").memory(tiny_random_pipe) == 8 * network + 12 * attention
    assert FewShot(train="all").memory(tiny_random_pipe) == 4 * network + 16 * texts
    assert Spm().memory(tiny_random_pipe) == 4 * network


def test_memory_is_that_of_the_gpu_where_the_model_is_on_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (2**29, 2**34))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 2**30)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 2**29)
    with pytest.raises(UserError, match=r"esd: training needs at least 2.0 GiB .* 1.0 GiB are free on cuda"):
        check_memory("esd", 2**31, torch.device("cuda"))
    check_memory("esd", 2**29, torch.device("cuda"))


def test_a_step_takes_the_mean_gradient_of_its_draws(work):
    ours, theirs = parameter(1.0, -2.0), parameter(1.0, -2.0)
    drawn = []

    def loss_of(draw: int) -> torch.Tensor:
        drawn.append(draw)
        return (ours**2 * (1 + draw)).sum()

    eraser = Line(iterations=4, accumulate=3)
    notes = train(eraser, work, {"x": ours}, loss_of, Optimization(clip=0.5))
    assert drawn == list(range(12)) and eraser.draws == 12
    optimizer = torch.optim.Adam([theirs], lr=0.1)
    for step in range(4):
        optimizer.zero_grad()
        loss = sum((theirs**2 * (1 + draw)).sum() for draw in range(3 * step, 3 * step + 3)) / 3
        if step == 0:
            assert notes["loss"]["first"] == pytest.approx(loss.item())
        loss.backward()
        torch.nn.utils.clip_grad_norm_([theirs], 0.5)
        optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_adafactor_steps_at_the_rate_that_is_asked_for_and_keeps_no_moments(work):
    start = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    ours, theirs = Parameter(start.clone()), Parameter(start.clone())
    goal = torch.arange(48.0).reshape(8, 6)
    optimization = Optimization(torch.optim.AdamW, {"weight_decay": 0.1})
    eraser = Line(iterations=1, optimizer="adafactor")
    train(eraser, work, {"x": ours}, lambda step: (ours - goal).square().mean(), optimization)
    # Adafactor's first step (Shazeer and Stern, 2018): rows' and columns' mean squares stand for all squares.
    gradient = (2 / 48) * (start - goal).double()
    squares = gradient.square() + 1e-30
    update = gradient / (squares.mean(1, keepdim=True) * squares.mean(0, keepdim=True) / squares.mean()).sqrt()
    update /= max(1.0, update.square().mean().sqrt().item())
    expected = start.double() * (1 - 0.1 * 0.1) - 0.1 * update
    torch.testing.assert_close(ours.detach().double(), expected, rtol=1e-5, atol=1e-6)
    train(replace(eraser, iterations=3), replace(work, folder=work.folder / "more"), {"x": theirs},
          lambda step: (theirs - goal).square().mean(), optimization)  # fmt: skip
    kept = load_file(work.folder / "more" / "checkpoint.safetensors")
    assert sum(tensor.numel() for name, tensor in kept.items() if name.startswith("state.")) == 8 + 6 + 2


@pytest.mark.parametrize("more", [{"optimizer": "adafactor"}, {"accumulate": 2}])
def test_a_training_goes_on_where_it_was_killed_with_every_option_of_the_loop(
    tiny_random_pipe, church_task, tmp_path, more
):
    eraser = Esd(iterations=4, steps=2, lr=1e-3, **more)
    assert_resumes(eraser, tiny_random_pipe, church_task, tmp_path, 2, 4)


def test_options_that_came_later_leave_the_keys_of_stored_edits_as_they_were(church_task):
    assert not {"accumulate", "optimizer"} & set(Esd().settings)
    changed = [Esd(), Esd(accumulate=2), Esd(optimizer="adafactor")]
    assert len({eraser.key("a model", church_task) for eraser in changed}) == 3
    assert Esd(accumulate=2).settings["accumulate"] == 2 and Esd(accumulate=2) == Esd(**Esd(accumulate=2).settings)


def test_a_checkpoint_that_cannot_be_written_is_said_and_the_last_one_stays(work, monkeypatch):
    x = parameter(1.0)
    train(Line(iterations=1), work, {"x": x}, lambda step: x.square().sum(), Optimization())
    path = work.folder / "checkpoint.safetensors"
    before = path.read_bytes()

    def full(tensors, filename):
        filename.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("erasebench.methods.trained.checkpoint.save_file", full)
    with pytest.raises(UserError, match="checkpoint could not be written .*No space left.* run the same command again"):
        train(Line(iterations=2), work, {"x": parameter(1.0)}, lambda step: x.square().sum(), Optimization())
    assert path.read_bytes() == before and list(work.folder.iterdir()) == [path]


def test_saving_memory_changes_nothing_but_the_time(tiny_random_pipe, church_task, work):
    eraser = Esd(iterations=2, steps=2, lr=1e-3)
    plain = eraser.edit(tiny_random_pipe, church_task, work=work)
    saving = replace(eraser, save_memory=True).edit(
        tiny_random_pipe, church_task, work=replace(work, folder=work.folder / "saving")
    )
    for name, change in plain.changes.items():
        torch.testing.assert_close(saving.changes[name].value, change.value, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_another_training_with_float32_weights(tiny_random_pipe, church_task, work):
    eraser = Esd(iterations=2, steps=2, lr=1e-3)
    plain = eraser.edit(tiny_random_pipe, church_task, work=work)
    half = replace(eraser, precision="bfloat16").edit(
        tiny_random_pipe, church_task, work=replace(work, folder=work.folder / "half")
    )
    assert {change.value.dtype for change in half.changes.values()} == {torch.float32}
    assert half.info["loss"]["first"] == pytest.approx(plain.info["loss"]["first"], rel=0.1)
    assert half.info["loss"] != plain.info["loss"]


# Groups of parameters.


def test_the_groups_are_those_of_the_papers(tiny_random_pipe):
    unet = tiny_random_pipe.unet
    names = {choice: set(group(unet, choice)) for choice in GROUPS}
    everything = dict(unet.named_parameters())
    assert names["full"] == set(everything)
    assert names["x"] == {name for name in everything if "attn2" in name}
    assert {name.rsplit(".", 2)[1] for name in names["x-strict"]} == {"to_k", "to_v"}
    assert not names["u"] & names["x"] and not any(name.startswith(("conv_out", "time_emb")) for name in names["u"])
    assert "conv_in.weight" in names["u"] and any("norm" in name for name in names["u"])
    assert not any("norm" in name for name in names["u-2025"]) and "conv_out.weight" in names["u-2025"]
    assert names["attention"] == names["x"] | names["self"]
    assert names["self+queries"] == names["self"] | {name for name in names["x"] if ".to_q." in name}
    for choice, chosen in names.items():
        assert all(group(unet, choice)[name] is everything[name] for name in chosen)


def test_a_group_that_is_none_or_empty_is_refused(tiny_random_pipe):
    with pytest.raises(UserError, match="train=xattn is no group.*x: cross-attention"):
        Esd(train="xattn")
    with pytest.raises(UserError, match="Linear has no such parameter"):
        group(torch.nn.Linear(2, 2), "x")


@pytest.mark.parametrize("choice", GROUPS)
def test_exactly_the_group_is_trained(tiny_random_pipe, church_task, work, choice):
    edit = Esd(iterations=1, steps=2, train=choice).edit(tiny_random_pipe, church_task, work=work)
    assert set(edit.changes) == {f"unet.{name}" for name in group(tiny_random_pipe.unet, choice)}


# The release of 2025.


def test_eta_of_2025_counts_from_the_concepts_own_prediction(tiny_random_pipe, church_task, work, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "erasebench.methods.trained.esd.esd_loss",
        lambda student, frozen, z, t, c, empty, eta: (seen.append(eta), sum(p.sum() for p in student.parameters()))[1],
    )
    for release, eta in ((2023, 1.0), (2025, 2.0)):
        Esd(iterations=1, steps=2, train="full", release=release, eta=eta).edit(
            tiny_random_pipe, church_task, work=replace(work, folder=work.folder / str(release))
        )
    assert seen == [1.0, 1.0]


def test_the_timestep_of_2025_is_the_next_of_the_sampler(tiny_random_pipe):
    eraser = Esd(release=2025, steps=10, batch=3)
    scheduler = ddim(tiny_random_pipe.scheduler.config, 10)
    draws = [Draw.of(3, step, ["a"], eraser, scheduler, tiny_random_pipe.unet) for step in range(100)]
    assert {one.remaining for one in draws} == set(range(1, 11))
    for one in draws:
        assert one.timestep.item() == scheduler.timesteps[10 - one.remaining]
        assert one.noise.shape == (3, 4, 8, 8)


# Latents, words and attention.


def test_the_columns_of_a_concept_are_its_own_tokens(tiny_random_pipe):
    # The tokenizer's tokens are single characters: BOS, then "a photo of the" is 12 of them.
    own = token_columns(tiny_random_pipe, "a photo of the {} here", "old church", pooled=False)
    assert own.tolist() == list(range(12, 21))
    whole = token_columns(tiny_random_pipe, "a photo of the {} here", "old church", pooled=True)
    assert whole.tolist() == [*range(12, 21), *range(25, 77)]


def test_images_of_a_concept_are_asked_for_in_turn_with_seeds_of_their_own(work):
    asked = []

    def sample(prompts, seeds, steps, guidance):
        asked.extend(zip(prompts, seeds, strict=True))
        return [Image.new("RGB", (64, 64), (40 * number, 0, 0)) for number in range(len(prompts))]

    pipe = load_model("embedded", device="cpu").pipe
    latents = example_latents(pipe, replace(work, sample=sample, seed=2**62 + 5), ["a", "b"], 3, 10, 4.0)
    assert asked == [("a", 5), ("b", 6), ("a", 7)] and latents.shape[0] == 3
    assert not torch.equal(latents[0], latents[2])


def test_images_are_encoded_as_the_pipeline_decodes_them():
    pipe = load_model("embedded", device="cpu").pipe  # a random VAE inverts nothing
    image = pipe(
        "church", num_inference_steps=8, guidance_scale=4.0, generator=torch.Generator().manual_seed(1)
    ).images[0]
    latents = encoded(pipe, [image, image])
    assert latents.shape == (2, pipe.unet.config.in_channels, 8, 8)
    with torch.no_grad():
        pixels = pipe.vae.decode(latents[:1] / pipe.vae.config.scaling_factor).sample[0].permute(1, 2, 0)
    original = torch.tensor(np.array(image)).float() / 127.5 - 1
    assert (pixels - original).abs().mean() < 0.1
    assert 0.5 < latents.std() < 2


def test_the_target_is_noise_or_velocity_as_the_model_predicts(tiny_random_pipe):
    x, noise, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([10, 700])
    scheduler = noising(tiny_random_pipe.scheduler.config)
    assert torch.equal(target_of(scheduler, x, noise, t), noise)
    velocity = noising(DDPMScheduler(prediction_type="v_prediction").config)
    alpha = velocity.alphas_cumprod[t].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(target_of(velocity, x, noise, t), alpha.sqrt() * noise - (1 - alpha).sqrt() * x)


def test_attention_is_recorded_with_gradients_and_the_network_is_as_before(small_pipe):
    unet = small_pipe().unet
    z, t, text = torch.randn(2, 4, 8, 8), torch.tensor([500]), torch.randn(2, 77, 24)
    before = unet(z, t, text).sample
    with recorded_attention(unet) as maps:
        inside = unet(z, t, text).sample
        layers = [name for name, _ in unet.named_modules() if name.endswith("attn2")]
        assert sorted(maps) == sorted(layers)
        for probabilities in maps.values():
            assert probabilities.shape[-1] == 77 and probabilities.shape[0] % 2 == 0
            torch.testing.assert_close(probabilities.sum(-1), torch.ones(probabilities.shape[:2]))
        weight = unet.get_submodule(layers[0]).to_k.weight
        (gradient,) = torch.autograd.grad(maps[layers[0]][..., 1].sum(), weight)
        assert gradient.abs().max() > 0
    torch.testing.assert_close(inside, before, rtol=1e-4, atol=1e-5)
    assert torch.equal(unet(z, t, text).sample, before)
