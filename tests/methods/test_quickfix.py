"""diff-quickfix equals a slow literal transcription, edits one weight of each text encoder, and leaves no hook behind."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from literal import quickfix

from erasebench.concepts import Concept, ErasureTask
from erasebench.config.compose import compose
from erasebench.edits.edit import Edit
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import pull
from erasebench.methods.closed_form.quickfix import FirstLayer, QuickFix, clip_encoders, first_projection
from erasebench.models.load import load_model
from erasebench.models.targets import named_weight
from erasebench.run import run
from erasebench.runs.tasks import task_groups
from erasebench.store import Store

seeds = st.integers(0, 10_000)
TASK = ErasureTask(
    (Concept("church", "object", ("church", "small chapel"), anchor="a hut"), Concept("tench", "object")),
    ("gas pump", ""),
)
RELEASED = ["A photo of {}", "An image of {}", "A picture of {}"]


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def norm(matrix):
    return torch.linalg.norm(matrix).item()


def watched(pipe, text, suffix=""):
    """Inputs and outputs ``[77, d]`` of the first layer's out_proj, from a whole forward of the text encoder."""
    encoder, tokenizer = getattr(pipe, f"text_encoder{suffix}"), getattr(pipe, f"tokenizer{suffix}")
    layer = (encoder.text_model if hasattr(encoder, "text_model") else encoder).encoder.layers[0].self_attn.out_proj
    seen = []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0][0], output[0])))
    tokens = tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    with torch.no_grad():
        encoder(tokens.input_ids)
    handle.remove()
    return (*(rows.double() for rows in seen[0]), int(tokens.attention_mask.sum()) - 2)


def expected(pipe, pairs, lam, use_eos, released=False, suffix=""):
    """The new weight, by the literal transcription."""
    keys, values = [], []
    for concept, anchor in pairs:
        inputs, _, n = watched(pipe, concept, suffix)
        _, outputs, m = watched(pipe, anchor, suffix)
        inputs, outputs = (inputs[n:], outputs[m:]) if use_eos else (inputs[n : n + 1], outputs[m : m + 1])
        keys += inputs[: len(outputs)]
        values += outputs[: len(inputs)]
    layer = first_projection(getattr(pipe, f"text_encoder{suffix}"))[1]
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    return weight, quickfix(weight, bias, torch.stack(keys), torch.stack(values), lam, released)


def with_bias(pipe):
    """A pipeline whose out_proj has a bias, which random weights leave at zero."""
    layer = first_projection(pipe.text_encoder)[1]
    with torch.no_grad():
        layer.bias.copy_(draw(5, len(layer.bias)))
    return pipe


def prompts(concept, anchor, templates):
    return [(concept, anchor), *((t.replace("{}", concept), t.replace("{}", anchor)) for t in templates)]


def assert_equal(edit, weight, new):
    ((_, change),) = edit.changes.items()
    literal = new - weight
    assert norm(change.of(weight) - literal) <= 1e-8 * norm(literal)


@pytest.mark.parametrize("use_eos", [True, False])
@pytest.mark.parametrize("released", [True, False])
def test_it_equals_the_literal_transcription(use_eos, released, small_pipe):
    pipe = with_bias(small_pipe())
    pipe.text_encoder.double()
    pairs = [
        pair
        for concept, anchor in (("church", "a hut"), ("small chapel", "a hut"), ("tench", ""))
        for pair in prompts(concept, anchor, RELEASED)
    ]
    weight, new = expected(pipe, pairs, 0.3, use_eos, released)
    bias = "as_released" if released else "subtracted"
    edit = QuickFix(lam=0.3, use_eos=use_eos, bias=bias).edit(pipe, TASK)
    assert_equal(edit, weight, new)
    assert edit.info["pairs"] == [list(pair) for pair in pairs]


def test_the_name_alone_with_an_anchor_of_ones_own(exact_pipe):
    task = ErasureTask((Concept("church", "object", ("church", "small chapel")),))
    weight, new = expected(exact_pipe, [("church", "sea"), ("a church.", "a sea.")], 0.01, False)
    edit = QuickFix(use_eos=False, templates=["a {}."], phrases=False, anchor="sea").edit(exact_pipe, task)
    assert_equal(edit, weight, new)


def test_sdxl_is_edited_in_both_encoders(tiny_random_sdxl_pipe):
    pipe = tiny_random_sdxl_pipe
    task = ErasureTask((Concept("church", "object"),))
    edit = QuickFix(lam=0.1, use_eos=True, templates=False).edit(pipe, task)
    assert len(edit.changes) == 2
    for (name, change), suffix in zip(edit.changes.items(), ("", "_2"), strict=True):
        assert name.startswith(f"text_encoder{suffix}.")
        weight, new = expected(pipe, [("church", "")], 0.1, True, suffix=suffix)
        assert named_weight(pipe, name).shape == weight.shape
        assert norm(change.of(weight) - (new - weight)) <= 1e-4 * norm(new - weight)  # the encoders are float32


def test_the_edited_layer_reads_the_concept_as_its_anchor(small_pipe):
    pipe = with_bias(small_pipe())
    task = ErasureTask((Concept("church", "object", anchor="a hut"),))
    edit = QuickFix(lam=1e-9, use_eos=False, templates=False).edit(pipe, task)
    _, outputs, m = watched(pipe, "a hut")
    with edit.applied(pipe):
        _, edited, n = watched(pipe, "church")
    assert norm(edited[n] - outputs[m]) <= 1e-4 * norm(outputs[m])


def test_the_released_bias_is_there_twice(small_pipe):
    pipe = with_bias(small_pipe())
    task = ErasureTask((Concept("church", "object", anchor="a hut"),))
    edit = QuickFix(lam=1e-9, use_eos=False, templates=False, bias="as_released").edit(pipe, task)
    _, outputs, m = watched(pipe, "a hut")
    with edit.applied(pipe):
        _, edited, n = watched(pipe, "church")
    bias = first_projection(pipe.text_encoder)[1].bias.detach().double()
    assert norm(edited[n] - outputs[m] - bias) <= 1e-4 * norm(outputs[m])


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(2, 12))
def test_one_key_lands_on_its_target_as_lam_goes_to_zero(seed, width):
    key, target = draw(seed, 1, width), draw(seed + 1, 1, width)
    change = pull(key, target, 1e-10)
    assert norm(key + change.rows(key) - target) <= 1e-7 * norm(target - key)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 4))
def test_duplicates_are_harmless(seed, times):
    """Every pair given n times is every pair once with lam / n."""
    keys, targets = draw(seed, 5, 9), draw(seed + 1, 5, 9)
    weight = draw(seed + 2, 4, 9)
    many = pull(keys.repeat(times, 1), targets.repeat(times, 1), 0.01).of(weight)
    assert norm(many - pull(keys, targets, 0.01 / times).of(weight)) <= 1e-8 * norm(many)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_a_concept_that_is_its_anchor_changes_nothing(seed):
    keys = draw(seed, 5, 9)
    assert norm(pull(keys, keys, 0.01).of(draw(seed + 1, 4, 9))) == 0


def test_a_concept_that_is_its_anchor_is_refused(exact_pipe):
    with pytest.raises(UserError, match="also the anchor"):
        QuickFix().edit(exact_pipe, ErasureTask((Concept("church", "object", anchor="Church"),)))


def test_a_nearly_empty_edit_is_warned_of(exact_pipe):
    edit = QuickFix(lam=1e6).edit(exact_pipe, TASK)
    assert any("nearly empty" in text for text in edit.info["warnings"])
    assert not QuickFix().edit(exact_pipe, TASK).info["warnings"]


def test_only_the_first_layer_is_computed_and_each_text_once(small_pipe):
    pipe = small_pipe()
    _, layer = first_projection(pipe.text_encoder)
    layers = [module for name, module in pipe.text_encoder.named_modules() if name.endswith("self_attn.q_proj")]
    calls = {0: 0, 1: 0}
    for index, module in enumerate(layers):
        module.register_forward_hook(
            lambda _, inputs, output, index=index: calls.update({index: calls[index] + len(output)})
        )
    FirstLayer(pipe.tokenizer, pipe.text_encoder, layer).keys(["church", "tench", "church"], False)
    assert calls == {0: 2, 1: 0}


def hooks(pipe):
    return [
        name for name, module in pipe.text_encoder.named_modules() if module._forward_pre_hooks or module._forward_hooks
    ]


def test_hooks_are_gone_afterwards_also_after_an_error(small_pipe, monkeypatch):
    pipe = small_pipe()
    before = {name: weight.clone() for name, weight in pipe.text_encoder.state_dict().items()}
    QuickFix().edit(pipe, TASK)
    assert hooks(pipe) == []
    assert all(torch.equal(before[name], weight) for name, weight in pipe.text_encoder.state_dict().items())
    embeddings = next(m for n, m in pipe.text_encoder.named_modules() if n.endswith("token_embedding"))

    def fail(*_):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(embeddings, "forward", fail)
    with pytest.raises(UserError, match="out of luck"):
        QuickFix().edit(pipe, TASK)
    assert hooks(pipe) == []


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_models_with_t5_are_refused(family, request):
    pipe = request.getfixturevalue(f"tiny_random_{family}_pipe")
    assert family in QuickFix.unsupported
    with pytest.raises(UserError, match="T5"):
        clip_encoders(pipe)


def test_a_pipeline_without_text_encoder_is_refused(small_pipe):
    pipe = small_pipe()
    pipe.text_encoder = None
    with pytest.raises(UserError, match="no CLIP text encoder"):
        QuickFix().changes(pipe, TASK)


@pytest.mark.parametrize(
    "options", [{"lam": 0.0}, {"lam": float("nan")}, {"bias": "added"}, {"templates": ["no place"]}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(UserError):
        QuickFix(**options)


@pytest.fixture(scope="module")
def embedded():
    return load_model("embedded").pipe


def image(pipe, prompt):
    return pipe(
        prompt, num_inference_steps=3, guidance_scale=4.0, output_type="np", generator=torch.Generator().manual_seed(0)
    ).images


@pytest.mark.parametrize("kind", ["object", "artist", "celebrity", "unsafe"])
def test_every_kind_is_edited_on_the_embedded_model(kind, embedded, tmp_path):
    task = task_groups(compose([f"task={kind}"]))[kind].tasks[0]
    edit = Edit.load(QuickFix().edit(embedded, task).save(tmp_path / "edit.safetensors"))
    assert next(iter(edit.info["moved"].values()))["target"] > 0.1
    prompt = f"a picture of {task.names[0]}"
    before = image(embedded, prompt)
    with edit.applied(embedded):
        edited = image(embedded, prompt)
    assert np.abs(edited - before).mean() > 0.01
    assert np.array_equal(image(embedded, prompt), before)


def test_a_run_encodes_its_prompts_with_the_edited_encoder(small_pipe, tmp_path):
    small_pipe().save_pretrained(tmp_path / "model")
    done = run(
        compose(
            [
                "model=folder", f"model.path={tmp_path / 'model'}", f"store.dir={tmp_path / 'results'}", "device=cpu",
                "protocol=embedded", "protocol.steps=2", "task=object", "task.erase=[church]", "metric=[]",
                "prompts.per_erased=2",
                "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=0", "prompts.general=0",
                "method=quickfix",
            ]
        )
    )  # fmt: skip
    records = Store(tmp_path / "results").image_records()
    pixels = dict(zip(records.key, records.pixels_sha256, strict=True))
    plan = pd.read_parquet(done.folder / "plan.parquet")
    edited = plan[plan.eraser == "quickfix"]
    assert len(edited) >= 2
    assert all(pixels[row.key] != pixels[row.original_key] for row in edited.itertuples())
