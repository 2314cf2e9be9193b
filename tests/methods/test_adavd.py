"""AdaVD's values are the formula's, position by position, in the prompt's pass alone or in both as released."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from guard_helpers import (
    LEVELS,
    check_alone_as_in_a_batch,
    check_leaves_nothing_and_comes_back,
    judged,
    pictures,
    recipes,
)

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.label import label_of
from erasebench.errors import UserError
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.methods.guards.adavd import AdaVd, orthogonal, without
from erasebench.methods.guards.sld import Sld
from erasebench.models.encode import encode_prompts
from erasebench.models.targets import key_value_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

LOW_GATE = {"slope": 4.0, "threshold": 0.1}
"""A gate that a random network half opens."""


def literal(values: np.ndarray, targets: np.ndarray, slope: float, threshold: float, strength: float) -> np.ndarray:
    """The formula one position at a time: values [positions, length], targets [k, positions, length]."""
    made = values.copy()
    for position in range(1, len(values)):
        v, basis = values[position], []
        for t in targets[:, position]:
            q = t - sum((t @ b) / (b @ b) * b for b in basis)
            basis.append(q)
            cosine = v @ t / np.linalg.norm(v) / np.linalg.norm(t)
            w = strength / (1 + math.exp(-slope * (cosine - threshold)))
            made[position] = made[position] - w * (v @ q) / (q @ q) * q
    return made


@pytest.mark.parametrize("concepts", [1, 3])
@pytest.mark.parametrize(("slope", "threshold", "strength"), [(100.0, 0.1, 2.0), (3.0, -0.2, 1.0), (0.0, 0.0, 2.0)])
def test_values_are_the_formula_position_by_position(concepts, slope, threshold, strength):
    generator = torch.Generator().manual_seed(concepts)
    values, targets = (torch.randn(n, 6, 10, generator=generator, dtype=torch.float64) for n in (4, concepts))
    settings = {"slope": slope, "threshold": threshold, "strength": strength}
    made = without(values, targets, orthogonal(targets), settings)
    for own, expected in zip(made, values, strict=True):
        np.testing.assert_allclose(own.numpy(), literal(expected.numpy(), targets.numpy(), **settings), atol=1e-10)
    assert torch.equal(made[:, 0], values[:, 0])
    if slope == 0:  # w = 1: nothing is left along any concept
        left = torch.einsum("npd,kpd->npk", made, targets)[:, 1:]
        assert left.abs().max() < 1e-10


def test_a_concept_that_is_named_twice_counts_once():
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, 6, 10, generator=generator, dtype=torch.float64)
    basis = orthogonal(torch.cat([one, 2 * one, one]))
    assert torch.equal(basis[0], one[0]) and not basis[1:].any()


@pytest.mark.parametrize("family", ["", "sd2_", "sdxl_"])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_layers_of_values_give_the_formula_and_all_else_is_as_it_was(request, variant, family, tmp_path):
    pipe = request.getfixturevalue(f"tiny_random_{family}pipe")
    task = ErasureTask((Concept("church", "object", ("church", "small chapel")), Concept("tench", "object")))
    edit = AdaVd(variant, **LOW_GATE).edit(pipe, task)
    prompts = ["a church", "two dogs"]
    rows, concepts = (encode_prompts(pipe, texts)[0] for texts in (prompts, ["church", "small chapel", "tench"]))
    (empty,) = encode_prompts(pipe, ["", ""], negative=True)[:1]
    last = [len(pipe.tokenizer(text).input_ids) - 2 for text in ("church", "small chapel", "tench")]
    concepts = torch.stack([text[place] for text, place in zip(concepts, last, strict=True)])
    x = torch.cat([empty, rows, torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))])  # a third pass
    with torch.no_grad(), edit.applied(pipe):
        (hook,) = edit.hooks
        torch.testing.assert_close(hook.tensors["concepts"], concepts, rtol=1e-4, atol=1e-5)
        hook.texts(pipe, {}, recipes(pipe, 2))
        for name, weight in key_value_weights(pipe).items():
            layer = pipe.unet.get_submodule(name.removeprefix("unet.").removesuffix(".weight"))
            own = layer(x).unflatten(0, (3, 2)).double().numpy()
            w = weight.detach().double().numpy()
            before = (x.double().numpy() @ w.T).reshape(3, 2, 77, -1)
            targets = np.repeat((concepts.double().numpy() @ w.T)[:, None], 77, axis=1)
            expected = before.copy()
            for i in range(2 if name.endswith("to_v.weight") else 0):
                if variant == "paper":
                    expected[1, i] = literal(before[1, i], targets, strength=2.0, **LOW_GATE)
                else:
                    away = np.repeat((empty[0].double().numpy() @ w.T)[None], 3, axis=0)
                    joined = np.concatenate([before[0, i], before[1, i]], axis=-1)
                    if family == "sdxl_":  # its empty negative text is zeros, and so is that half of the targets
                        assert not away.any()
                    both = literal(joined, np.concatenate([away, targets], axis=-1), strength=2.0, **LOW_GATE)
                    expected[0, i], expected[1, i] = np.split(both, 2, axis=-1)
            np.testing.assert_allclose(own, expected, rtol=1e-3, atol=1e-4)
    assert not any(module._forward_hooks for module in pipe.unet.modules())


def test_a_closed_gate_leaves_the_unedited_image_and_an_open_one_does_not(tiny_random_pipe, church_task, tmp_path):
    pipe = tiny_random_pipe
    without_it = pictures(pipe, None, recipes(pipe, 3, edit=""), tmp_path / "without", batch_size=1)
    shut = AdaVd(slope=1e6, threshold=1.0).edit(pipe, ErasureTask((Concept("zz", "object"),)))
    assert np.abs(pictures(pipe, shut, recipes(pipe, 3), tmp_path / "shut", batch_size=1) - without_it).max() <= LEVELS
    for variant in ("paper", "released"):
        edit = AdaVd(variant, gate=False).edit(pipe, church_task)
        changed = pictures(pipe, edit, recipes(pipe, 3), tmp_path / variant, batch_size=1)
        assert (changed != without_it).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_what_else_is_in_the_batch_does_not_change_an_image(variant, tiny_random_pipe, church_task, tmp_path):
    check_alone_as_in_a_batch(
        tiny_random_pipe, AdaVd(variant, gate=False).edit(tiny_random_pipe, church_task), tmp_path
    )


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_it_leaves_nothing_behind_and_comes_back_from_a_file(variant, tiny_random_pipe, church_task, tmp_path):
    edit = AdaVd(variant, gate=False).edit(tiny_random_pipe, church_task)
    check_leaves_nothing_and_comes_back(tiny_random_pipe, edit, tmp_path)


def test_without_guidance_the_release_is_refused_and_the_paper_acts(tiny_random_pipe, church_task, tmp_path):
    pipe, few = tiny_random_pipe, recipes(tiny_random_pipe, 2, guidance=1.0)
    with pytest.raises(UserError, match="adavd_joined: acts on the second, unconditional pass"):
        pictures(pipe, AdaVd("released").edit(pipe, church_task), few, tmp_path / "a")
    ours = pictures(pipe, AdaVd(gate=False).edit(pipe, church_task), few, tmp_path / "b")
    unedited = pictures(pipe, None, recipes(pipe, 2, guidance=1.0, edit=""), tmp_path / "c")
    assert (ours != unedited).any()


def test_it_goes_with_an_edit_of_the_weights_and_a_third_pass_and_not_with_itself(
    tiny_random_pipe, church_task, tmp_path
):
    pipe = tiny_random_pipe

    def both(*parts):
        return Compose({f"p{i}": part for i, part in enumerate(parts)}).edit(pipe, church_task)

    guard = AdaVd(gate=False)
    edits = [guard.edit(pipe, church_task), Uce().edit(pipe, church_task), both(Uce(), guard), both(guard, Sld("max"))]
    images = [pictures(pipe, edit, recipes(pipe), tmp_path / str(i)) for i, edit in enumerate(edits)]
    for i, image in enumerate(images):
        assert all((image != other).any() for other in images[:i])
    with pytest.raises(UserError, match="adavd and adavd_joined both act on the values of cross-attention"):
        both(guard, AdaVd("released"))


def test_an_edit_of_a_model_with_other_texts_is_refused(tiny_random_pipe, tiny_random_sd2_pipe, church_task):
    edit = AdaVd().edit(tiny_random_pipe, church_task)
    with (
        pytest.raises(UserError, match="adavd: texts of the model are 20 wide, the edit's 24"),
        edit.applied(tiny_random_sd2_pipe),
    ):
        pass
    assert not any(module._forward_hooks for module in tiny_random_sd2_pipe.unet.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "release"}, "adavd: variant 'release' .*released"),
        ({"slope": 0.0}, "adavd: slope is 0.0; it must be from"),
        ({"strength": float("inf")}, "adavd: strength is inf"),
        ({"threshold": 1.5}, "adavd: threshold is 1.5; it must be from -1 to 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        AdaVd(**options)
    assert set(AdaVd.unsupported) == {"sd3", "flux"}
    assert label_of("adavd_released", AdaVd("released")).text == "adavd_released"


def test_by_the_public_command_without_its_gate_it_erases(tmp_path):
    truck = (
        "task=object",
        "task.erase=[garbage truck]",
        "task.concepts=[garbage truck,parachute,golf ball]",
        "method.gate=false",
    )
    seen = judged("adavd", tmp_path, *truck)
    assert seen["none", "erase"] >= 0.75 and seen["guard", "erase"] <= 0.25
