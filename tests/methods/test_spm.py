"""SPM's gates and adapters are what the paper's released code computes, and the directions are UCE's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.change import Change
from erasebench.edits.edit import Edit
from erasebench.edits.hook import put_on
from erasebench.errors import UserError
from erasebench.methods.adapters.spm import Membrane, SpmUce, main_direction
from erasebench.methods.closed_form.uce import Uce
from erasebench.models.encode import encode_prompts
from erasebench.models.targets import key_value_weights, named_weight

PROMPTS = ["a church", "chapel", "a photo of a small dog", "", "gas pump"]


def batch_of(pipe, prompts):
    (rows,) = encode_prompts(pipe, prompts)
    return {"prompt_embeds": rows}, [SimpleNamespace(prompt=prompt) for prompt in prompts]


def matching_score(prompt_tokens, prompt_embeds, erased_prompt_tokens, erased_prompt_embeds, special_token_ids):
    """``calculate_matching_score`` of the release, with its default metric, in other words."""
    cosine = torch.cosine_similarity(prompt_embeds.flatten(1, 2), erased_prompt_embeds.flatten(1, 2), dim=-1)
    prompt_set = set(prompt_tokens[0].tolist()) - special_token_ids
    union = []
    for erased in erased_prompt_tokens:
        erased_set = set(erased.tolist()) - special_token_ids
        union.append(len(prompt_set.intersection(erased_set)) / len(erased_set))
    return torch.max(torch.stack([cosine, torch.tensor(union)]), dim=0)[0]


def test_the_gates_are_those_of_the_release(tiny_random_pipe):
    pipe, phrases = tiny_random_pipe, [["church", "small chapel"], ["gas pump"]]
    hook = Membrane({"phrases": phrases}, {})
    with hook.installed(pipe):
        hook.texts(pipe, *batch_of(pipe, PROMPTS))
        gates = hook.gates
    assert gates.shape == (5, 2) and hook.gates is None
    special = set(pipe.tokenizer.all_special_ids)

    def encoded(texts):
        tokens = pipe.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
        return tokens, pipe.text_encoder(tokens)[0].detach()

    for prompt, own in zip(PROMPTS, gates, strict=True):
        for texts, gate in zip(phrases, own, strict=True):
            score = matching_score(*encoded([prompt]), *encoded(texts), special)
            torch.testing.assert_close(gate, score.max(), rtol=1e-4, atol=1e-5)
    assert gates[0, 0] == 1 and gates[4, 1] == pytest.approx(1)  # the phrase's own tokens are all there
    assert gates[3].max() < 1


@pytest.fixture
def adapters(tiny_random_pipe) -> Membrane:
    tensors = {}
    for i, (name, weight) in enumerate(key_value_weights(tiny_random_pipe).items()):
        generator = torch.Generator().manual_seed(i)
        tensors[f"up.{name}"] = torch.randn(2, weight.shape[0], generator=generator)
        tensors[f"down.{name}"] = torch.randn(2, weight.shape[1], generator=generator)
    return Membrane({"phrases": [["church"], ["gas pump"]]}, tensors)


def test_behind_the_last_step_nobody_is_taken_for_an_image_of_the_batch(adapters, tiny_random_pipe):
    """A search that calls the network itself, with a batch of its own, gets gates of 1."""
    pipe = tiny_random_pipe
    with adapters.installed(pipe):
        adapters.texts(pipe, *batch_of(pipe, PROMPTS))
        pipe._num_timesteps = 2
        adapters.on_step(pipe, 0, 1, {})
        assert adapters.gates is not None
        adapters.on_step(pipe, 1, 0, {})
        assert adapters.gates is None


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_layer_gives_its_own_output_and_each_adapter_times_its_gate(adapters, tiny_random_pipe, passes):
    pipe = tiny_random_pipe
    inputs, batch = batch_of(pipe, PROMPTS[:3])
    x = torch.cat([inputs["prompt_embeds"] * (i + 1) for i in range(passes)])
    with torch.no_grad(), put_on([adapters], pipe):
        adapters.texts(pipe, inputs, batch)
        for name, weight in key_value_weights(pipe).items():
            layer = pipe.unet.get_submodule(name.removeprefix("unet.").removesuffix(".weight"))
            up, down = adapters.tensors[f"up.{name}"], adapters.tensors[f"down.{name}"]
            expected = torch.stack(
                [
                    rows @ weight.T
                    + sum(adapters.gates[i % 3, k] * (rows @ down[k])[:, None] * up[k] for k in range(2))
                    for i, rows in enumerate(x)
                ]
            )
            torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    assert not any(module._forward_hooks for module in pipe.unet.modules())


def test_as_released_every_gate_multiplies_both_factors_of_the_summed_adapters(adapters, tiny_random_pipe):
    """``weighted[key] += value * gate`` for up and down alike, then ``up(down(x))``: Con6924/SPM@7dcfd21:infer_spm.py."""
    pipe = tiny_random_pipe
    hook = Membrane({**adapters.settings, "mixed": True, "scale": 2.0}, adapters.tensors)
    inputs, batch = batch_of(pipe, PROMPTS[:3])
    x = torch.cat([inputs["prompt_embeds"], 2 * inputs["prompt_embeds"]])
    with torch.no_grad(), put_on([adapters, hook], pipe):
        adapters.texts(pipe, inputs, batch)
        hook.texts(pipe, inputs, batch)
        torch.testing.assert_close(hook.gates, 2 * adapters.gates)
    with torch.no_grad(), put_on([hook], pipe):
        hook.texts(pipe, inputs, batch)
        for name, weight in key_value_weights(pipe).items():
            layer = pipe.unet.get_submodule(name.removeprefix("unet.").removesuffix(".weight"))
            up, down = hook.tensors[f"up.{name}"], hook.tensors[f"down.{name}"]
            expected = torch.stack(
                [
                    rows @ weight.T + (rows @ (gate @ down))[:, None] * (gate @ up)
                    for rows, gate in zip(x, hook.gates.repeat(2, 1), strict=True)
                ]
            )
            torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-3)


def picture(pipe):
    generator = torch.Generator().manual_seed(3)
    options = {"num_inference_steps": 2, "height": 16, "width": 16, "output_type": "pt"}
    return pipe("a church", generator=generator, **options).images


def test_with_open_gates_it_is_the_edit_of_the_weights_by_the_same_factors(adapters, tiny_random_pipe):
    pipe = tiny_random_pipe
    changes = {
        name: Change(left=adapters.tensors[f"up.{name}"].T.double(), right=adapters.tensors[f"down.{name}"].double())
        for name in key_value_weights(pipe)
    }
    with Edit(changes).applied(pipe):
        by_weights = picture(pipe)
    with Edit({}, hooks=(adapters,)).applied(pipe):  # no batch was announced, so the gates are 1
        by_adapters = picture(pipe)
    torch.testing.assert_close(by_adapters, by_weights, rtol=1e-3, atol=1e-3)
    assert (picture(pipe) - by_weights).abs().max() > 0.05


def test_an_adapter_of_another_model_is_refused_and_nothing_is_left(
    adapters, tiny_random_sd2_pipe, tiny_random_sdxl_pipe
):
    for pipe in (tiny_random_sd2_pipe, tiny_random_sdxl_pipe):
        with pytest.raises(UserError, match="the edit was made for another model"), put_on([adapters], pipe):
            pass
        assert not any(module._forward_hooks for module in pipe.unet.modules())


def test_the_adapters_are_the_nearest_of_rank_one_to_each_concepts_own_uce(exact_pipe):
    one, two = Concept("church", "object", ("church", "small chapel")), Concept("gas pump", "object")
    task = ErasureTask((one, two), ("tench",))
    edit = SpmUce(scale=0.5).edit(exact_pipe, task)
    (hook,) = edit.hooks
    assert not edit.changes and edit.info["share"] == 0 and edit.info["hooks"] == [{"name": "spm", "version": "1"}]
    assert hook.settings == {"phrases": [["church", "small chapel"], ["gas pump"]]}
    for k, target in enumerate((one, two)):
        changes = Uce().edit(exact_pipe, ErasureTask((target,), ("tench",))).changes
        for name, change in changes.items():
            whole = change.of(named_weight(exact_pipe, name).detach())
            u, s, vh = torch.linalg.svd(whole, full_matrices=False)
            nearest = s[0] * torch.outer(u[:, 0], vh[0])
            ours = torch.outer(hook.tensors[f"up.{name}"][k].double(), hook.tensors[f"down.{name}"][k].double()) / 0.5
            torch.testing.assert_close(ours, nearest, rtol=1e-4, atol=1e-5)
    assert 0 < edit.info["kept"] <= 1


@pytest.mark.parametrize("form", ["factors", "dense"])
def test_the_main_direction_is_the_first_singular_triple(form):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((7, 3), (3, 5)))
    change = Change(left=left, right=right) if form == "factors" else Change(delta=left @ right)
    up, down, kept = main_direction(change, torch.zeros(7, 5))
    u, s, vh = torch.linalg.svd(left @ right)
    torch.testing.assert_close(torch.outer(up, down), s[0] * torch.outer(u[:, 0], vh[0]))
    assert kept == pytest.approx((s[0] ** 2 / s.square().sum()).item())


def test_options_and_models_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="spm_uce: scale"):
        SpmUce(scale=0)
    assert set(SpmUce.unsupported) == {"sd3", "flux"}
