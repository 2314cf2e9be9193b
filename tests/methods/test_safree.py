"""SAFREE's filter is the paper's formulas, it acts for its own number of steps, and re-attention is what it says."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from guard_helpers import (
    KEY,
    LEVELS,
    check_alone_as_in_a_batch,
    check_leaves_nothing_and_comes_back,
    judged,
    pictures,
    recipes,
)
from hypothesis import given
from hypothesis import strategies as st

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.edit import Edit
from erasebench.edits.found import Found, Replace
from erasebench.errors import UserError
from erasebench.images.generate import generate
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.methods.guards.negative_prompt import NegativePrompt
from erasebench.methods.guards.safree import FilteredText, Reattended, Safree, attended, decoder
from erasebench.methods.guards.sld import Sld
from erasebench.models.encode import encode_prompts
from erasebench.store import Store

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

ALPHA = 0.01
PROMPTS = ["a church", "church", "the chapel by monet", "a small dog", "a", "church church"]
ALWAYS = {"alpha": -1.0, "slope": 0.0, "offset": -50.0}
"""Every token leads to the concept, and the filter stays for its ten steps of 50."""

LONG = ["the church by the sea at the end of a long day in may", "two dogs on a small boat far away from here"]


def tokens_of(pipe, text):
    return pipe.tokenizer(text).input_ids


def literal(pipe, concepts: np.ndarray, prompt: str, alpha: float, k: float, t0: float, released: bool):
    """The formulas one by one, in float64: filtered rows of BOS, tokens and EOS; and the last step (-1: none)."""
    ids = tokens_of(pipe, prompt)
    with torch.no_grad():
        rows = pipe.text_encoder(torch.tensor([ids])).last_hidden_state[0].double().numpy()
        masked = []
        for i in range(1, len(ids) - 1):
            other = [0 if j == i else token for j, token in enumerate(ids)]
            masked.append(pipe.text_encoder(torch.tensor([other])).pooler_output[0].double().numpy())
    c = concepts.T
    p_c = c @ np.linalg.pinv(c.T @ c, rcond=1e-8, hermitian=True) @ c.T
    e = np.stack(masked).T
    p_i = e @ np.linalg.pinv(e.T @ e, rcond=1e-8, hermitian=True) @ e.T
    away = np.eye(len(p_c)) - p_c
    d = [np.linalg.norm(away @ row) for row in masked]
    filtered, fired = rows.copy(), False
    for i in range(len(d)):
        rest = d[:i] + d[i + 1 :]
        if rest and d[i] >= (1 + alpha) * sum(rest) / len(rest):
            filtered[i + 1], fired = away @ p_i @ rows[i + 1], True
    cosines = []
    for row in rows:
        moved = away @ p_i @ row
        cosines.append(moved @ row / np.linalg.norm(moved) / np.linalg.norm(row))
    beta = 1 - sum(cosines) / len(cosines)
    argument = 2 * k * (10 * beta - t0) if released else beta
    return filtered, round(10 / (1 + math.exp(-argument))) if fired else -1


@pytest.mark.parametrize(("kind", "k", "t0"), [("unsafe", 2.5, 5.333), ("artist", 3.5, 5.5)])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_filter_is_the_formulas_one_by_one(variant, kind, k, t0, tiny_random_pipe):
    pipe = tiny_random_pipe
    task = ErasureTask((Concept("church", kind, ("church", "the chapel", "Church")),))
    edit = Safree(variant=variant).edit(pipe, task)
    hook, fired = edit.hooks[0], 0
    concepts = hook.tensors["concepts"].double().numpy()
    assert len(concepts) == 3 and edit.info["texts"] == ["church", "the chapel", "Church"]
    with torch.no_grad(), hook.installed(pipe):
        (rows,) = encode_prompts(pipe, PROMPTS)
        for prompt, own in zip(PROMPTS, rows, strict=True):
            filtered, last = hook._filter(pipe, tuple(tokens_of(pipe, prompt)), own, SimpleNamespace(prompt=prompt))
            expected, until = literal(pipe, concepts, prompt, ALPHA, k, t0, variant == "released")
            assert last == until
            fired += last >= 0
            np.testing.assert_allclose(filtered[: len(expected)].numpy(), expected, rtol=1e-4, atol=1e-4)
            assert torch.equal(filtered[len(expected) - 1 :], own[len(expected) - 1 :]), "EOS and padding stay"
            assert torch.equal(filtered[0], own[0])
    assert 0 < fired < len(PROMPTS), "of these prompts some have a token that leads to the concept, and one has not"


@given(st.integers(0, 99), st.floats(0.1, 1), st.sampled_from([(6, 6), (8, 5)]))
def test_re_attention_scales_the_low_frequencies_that_are_raised_and_no_other(seed, scale, size):
    generator = torch.Generator().manual_seed(seed)
    safe, original = torch.randn(2, 3, *size, generator=generator)
    made = np.fft.fft2(attended(safe, original, scale).double().numpy())
    own, other = np.fft.fft2(safe.double().numpy()), np.fft.fft2(original.double().numpy())
    spectrum = own.copy()
    for u in (0, -1):
        for v in (0, -1):
            raised = abs(own[:, u, v]) > 1.001 * abs(other[:, u, v])
            spectrum[raised, u, v] *= scale
    # The middle of the shifted transform has no partner of the opposite sign, so the real part is taken.
    expected = np.fft.fft2(np.fft.ifft2(spectrum).real)
    np.testing.assert_allclose(made, expected, atol=1e-4)
    assert torch.allclose(attended(safe, safe, scale), safe, atol=1e-5)


def test_the_decoder_is_scaled_where_it_is_widest_and_next_to_that(tiny_random_pipe):
    from diffusers import UNet2DConditionModel

    blocks = {id(block): (channels, scale) for block, channels, scale in decoder(tiny_random_pipe.unet)}
    shapes = {}

    def note(block, args):
        shapes[id(block)] = args[0].shape[1]

    handles = [block.register_forward_pre_hook(note) for up in tiny_random_pipe.unet.up_blocks for block in up.resnets]
    with torch.no_grad():
        tiny_random_pipe.unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 77, 24))
    for handle in handles:
        handle.remove()
    assert all(channels < shapes[place] for place, (channels, _) in blocks.items())
    # Stable Diffusion 1.x: 1280 channels before the skip features in seven blocks, 640 in three
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=8, attention_head_dim=8
        )
    found = [(channels, scale) for _, channels, scale in decoder(unet)]
    assert found == [(1280, 0.9)] * 7 + [(640, 0.2)] * 3


def always(pipe, kind=FilteredText) -> Edit:
    (concepts,) = encode_prompts(pipe, ["church"])
    return Edit({}, {"method": "safree"}, (kind(ALWAYS, {"concepts": concepts[0, 4:5]}),))


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_prompt_in_which_nothing_leads_to_the_concept_has_the_unedited_image(
    variant, tiny_random_pipe, church_task, tmp_path
):
    pipe = tiny_random_pipe
    hook = next(h for h in Safree(alpha=1e6, variant=variant).edit(pipe, church_task).hooks if "safree" in h.name)
    ours = pictures(pipe, Edit({}, {}, (hook,)), recipes(pipe, 4), tmp_path / "a")
    without = pictures(pipe, None, recipes(pipe, 4, edit=""), tmp_path / "b")
    assert np.abs(ours - without).max() <= LEVELS
    prompts = [*LONG, "", "a"]  # of one token there are no others to compare it with
    changed = pictures(pipe, always(pipe, type(hook)), recipes(pipe, 4, prompts=prompts), tmp_path / "c", batch_size=1)
    without = pictures(pipe, None, recipes(pipe, 4, edit="", prompts=prompts), tmp_path / "d", batch_size=1)
    assert [(a != b).any() for a, b in zip(changed, without, strict=True)] == [True, True, False, False]


def test_the_network_reads_the_filtered_rows_for_the_steps_of_the_filter_alone(tiny_random_pipe, tmp_path):
    pipe, seen = tiny_random_pipe, []
    edit = always(pipe)
    with Edit(edit.changes, edit.info, edit.hooks, KEY).applied(pipe):
        handle = pipe.unet.register_forward_pre_hook(
            lambda unet, args, kwargs: seen.append(kwargs["encoder_hidden_states"].clone()), with_kwargs=True
        )
        pictures(pipe, None, recipes(pipe, 2, steps=25), tmp_path)
        handle.remove()
    (rows,) = encode_prompts(pipe, ["a cat", "a church by monet"])
    (empty,) = encode_prompts(pipe, ["", ""])
    other = [(one[2:] - rows).abs().amax(dim=(1, 2)) > 1e-3 for one in seen]
    # Ten of 50 are five of 25; the step at which it ends is one of them.
    assert [bool(step.all()) for step in other] == [True] * 6 + [False] * 19
    assert not any(step.any() for step in other[6:])
    assert all(torch.equal(one[:2], empty) for one in seen)


@pytest.mark.parametrize("kind", [FilteredText, Reattended])
def test_what_else_is_in_the_batch_does_not_change_an_image(kind, tiny_random_pipe, tmp_path):
    check_alone_as_in_a_batch(tiny_random_pipe, always(tiny_random_pipe, kind), tmp_path, prompts=LONG)


@pytest.mark.parametrize("kind", [FilteredText, Reattended])
def test_without_guidance_the_prompts_only_row_is_filtered(kind, tiny_random_pipe, tmp_path):
    pipe = tiny_random_pipe
    options = {"guidance": 1.0, "prompts": LONG}
    ours = pictures(pipe, always(pipe, kind), recipes(pipe, 2, **options), tmp_path / "a")
    without = pictures(pipe, None, recipes(pipe, 2, edit="", **options), tmp_path / "b")
    assert (ours != without).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_it_leaves_nothing_behind_and_comes_back_from_a_file(variant, tiny_random_pipe, church_task, tmp_path):
    edit = Safree(variant=variant).edit(tiny_random_pipe, church_task)
    check_leaves_nothing_and_comes_back(tiny_random_pipe, edit, tmp_path, prompts=["a church"])


def test_an_attack_by_tokens_is_filtered_and_one_by_rows_is_refused(tiny_random_pipe, tmp_path):
    pipe = tiny_random_pipe
    (recipe,) = recipes(pipe, prompts=["a cat"])
    attacked = type(recipe).from_dict(recipe.to_dict() | {"attack": "k"})
    (plain,) = recipes(pipe, prompts=["two dogs"])
    drawn = tuple(tokens_of(pipe, "two dogs")[1:-1])
    model = SimpleNamespace(name="m", revision="r", pipe=pipe)
    edit = always(pipe)
    with Edit(edit.changes, edit.info, edit.hooks, KEY).applied(pipe):
        store = Store(tmp_path / "tokens")
        generate(model, [attacked, plain], store, hooks=[Replace({"k": Found(tokens=drawn)})])
        difference = np.asarray(store.image(attacked.key), dtype=int) - np.asarray(store.image(plain.key), dtype=int)
        assert np.abs(difference).max() <= LEVELS
        rows = torch.randn(77, 24, generator=torch.Generator().manual_seed(0))
        with pytest.raises(UserError, match="safree: the rows that are drawn for prompt 'a cat' are not those of its"):
            generate(model, [attacked], Store(tmp_path / "rows"), hooks=[Replace({"k": Found(embedding=rows)})])


def test_it_goes_with_an_edit_of_the_weights_and_not_with_what_acts_on_the_same(
    tiny_random_pipe, church_task, tmp_path
):
    pipe = tiny_random_pipe

    def both(*parts):
        return Compose({f"p{i}": part for i, part in enumerate(parts)}).edit(pipe, church_task)

    edits = [Safree().edit(pipe, church_task), Uce().edit(pipe, church_task), both(Uce(), Safree())]
    edits += [both(Safree(), NegativePrompt()), both(Safree(variant="released"), Sld("max"))]
    images = [pictures(pipe, edit, recipes(pipe, prompts=LONG), tmp_path / str(i)) for i, edit in enumerate(edits)]
    for i, image in enumerate(images):
        assert all((image != other).any() for other in images[:i])
    for parts, words in (
        ((Safree(), Safree(variant="released")), "safree_reattention and safree both act on the prompt's text"),
        ((Sld(), Safree()), "sld and safree_reattention both act on a third pass of the network"),
        ((NegativePrompt(), Safree(variant="released")), "both act on the negative prompt"),
    ):
        with pytest.raises(UserError, match=words):
            both(*parts)


def test_an_edit_of_a_model_with_other_texts_is_refused(tiny_random_pipe, tiny_random_sd2_pipe, church_task):
    edit = Safree().edit(tiny_random_pipe, church_task)
    with (
        pytest.raises(UserError, match="safree_reattention: texts of the model are 20 wide, the edit's 24"),
        edit.applied(tiny_random_sd2_pipe),
    ):
        pass
    assert not tiny_random_sd2_pipe.unet._forward_pre_hooks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.1}, "safree: alpha is -0.1"),
        ({"alpha": float("nan")}, "safree: alpha is nan"),
        ({"texts": ()}, "safree: texts has none"),
        ({"texts": ("a", " ")}, "safree: texts has none, or an empty one"),
        ({"variant": "release"}, "safree: variant 'release' .*released"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Safree(**options)
    assert set(Safree.unsupported) == {"sdxl", "sd3", "flux"}


def test_by_the_public_command_it_keeps_what_it_should_keep_and_changes_what_it_should_not(tmp_path):
    church = ("task=object", "task.erase=[church]", "task.concepts=[church,parachute,golf ball]")
    seen = judged("safree_released", tmp_path, *church)
    assert seen["none", "erase"] >= 0.75 and seen["guard", "erase"] <= seen["none", "erase"]
    assert seen["guard", "retain"] >= 0.75
