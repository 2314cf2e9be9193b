"""Export: what is written loads in diffusers and makes the same images; what cannot be right is refused.

Tolerances. Changed weights and whole folders hold the very numbers that the edit gives: their images are equal. A LoRA
is added in float32 to what the unedited layer gives, so sums round elsewhere: an image may differ by one level of 255.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file
from table_helpers import METRICS, make_costs, make_plan, make_scores

from erasebench.cli import main
from erasebench.concepts import Concept, ErasureTask
from erasebench.config.compose import compose
from erasebench.edits.change import Change
from erasebench.edits.edit import Edit
from erasebench.edits.hook import Hook
from erasebench.errors import UserError
from erasebench.export.apply import apply
from erasebench.export.card import NOT_MEASURED, Card, measured_effect, model_card
from erasebench.export.export import DELTA_FILE, FORMS, export, write_export
from erasebench.export.export import settings as export_settings
from erasebench.export.find import find_edit
from erasebench.export.lora import FILE, LARGEST, TOLERANCE, lora
from erasebench.methods.closed_form.cure import Cure
from erasebench.methods.closed_form.uce import Uce
from erasebench.models.load import Model, load_model
from erasebench.models.marks import MARK, read_marks
from erasebench.models.targets import named_weight
from erasebench.run import run
from erasebench.runs.about import About
from erasebench.store import Store
from erasebench.tables import measure as tables
from erasebench.tables.layout import write_tables

LEVELS = 1
"""A LoRA's image may differ by so much of 255; see above."""

PIPES = ["tiny_random_pipe", "tiny_random_sd2_pipe", "tiny_random_sdxl_pipe", "tiny_random_sd3_pipe", "tiny_random_flux_pipe"]  # fmt: skip


def quiet() -> Console:
    return Console(quiet=True)


def draw(pipe, prompt: str = "a photo of a church", seed: int = 3) -> np.ndarray:
    """One image as levels of 255."""
    pipe.set_progress_bar_config(disable=True)
    size = {} if hasattr(pipe, "unet") else {"height": 16, "width": 16, "max_sequence_length": 32}
    made = pipe(prompt, num_inference_steps=2, generator=torch.Generator().manual_seed(seed), **size)
    return np.asarray(made.images[0]).astype(int)


def encoded(pipe) -> torch.Tensor:
    return pipe.encode_prompt("church", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)[0]


def load_by_card(folder: Path, monkeypatch: pytest.MonkeyPatch, base: Path | None = None):
    """The pipeline that a card's own code gives, run in its folder. ``base`` stands for the name of a local folder."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    if "load_lora_weights" in code:
        pytest.importorskip("peft")
    code = code.replace('from_pretrained("base"', f'from_pretrained("{base}"')
    lines = [line for line in code.splitlines() if not line.startswith("image =")]
    assert len(lines) < len(code.splitlines()), "the card draws an image"
    monkeypatch.chdir(folder)
    names: dict = {}
    exec("\n".join(lines), names)
    return names["pipe"]


def low_rank(pipe, names, ranks, seed: int = 0) -> Edit:
    """Random changes of the given ranks, as large as to be seen."""
    generator = torch.Generator().manual_seed(seed)
    changes = {}
    for name, rank in zip(names, ranks, strict=True):
        rows, width = named_weight(pipe, name).shape
        left = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
        right = torch.randn(rank, width, generator=generator, dtype=torch.float64) / width
        changes[name] = Change(left=left, right=right)
    return Edit(changes, {"method": "random"})


def text_weights(pipe) -> list[str]:
    """Weights of the denoiser that read text, in any family."""
    part = "unet" if getattr(pipe, "unet", None) is not None else "transformer"
    ends = ("attn2.to_k.weight", "attn2.to_v.weight", "context_embedder.weight", "add_k_proj.weight")
    return [f"{part}.{name}" for name, _ in getattr(pipe, part).named_parameters() if name.endswith(ends)]


@pytest.fixture(scope="module")
def base(small_pipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "base"
    small_pipe().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run with three erasers and two tasks."""
    store = tmp_path_factory.mktemp("results")
    run(
        compose(
            [
                "model=folder", f"model.path={base}", "model.name=small", "protocol=embedded", "protocol.steps=2",
                "task=object", "task.erase=[church,gas pump]", "metric=[judge]", "prompts.per_erased=2",
                "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=0", "prompts.general=2",
                "device=cpu", f"store.dir={store}", "name=mine",
            ]
        ),
        quiet(),
    )  # fmt: skip
    return store


# Round trips


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("eraser", ["cure", "uce", "rece"])
def test_an_edit_of_a_run_comes_back_by_the_code_of_its_card(
    form: str, eraser: str, finished: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export(
        form, run="mine", eraser=eraser, task="church", out=str(tmp_path / "out"), store=str(finished), console=quiet(),
        rank=24 if form == "lora" else None,
    )  # fmt: skip
    plan = pd.read_parquet(finished / "runs" / "mine" / "plan.parquet")
    key = plan.edit_key[(plan.eraser == eraser) & (plan.task == "church")].iloc[0]
    model = load_model(str(base), device="cpu")
    unedited = draw(model.pipe)
    with Store(finished).get_edit(key).applied(model.pipe):
        expected = draw(model.pipe)
    assert np.abs(expected - unedited).max() > 3 * LEVELS, "an edit that is not seen would prove nothing"
    assert np.abs(draw(load_by_card(out, monkeypatch, base)) - expected).max() <= (LEVELS if form == "lora" else 0)
    (info,) = read_marks(out)
    assert info["method"] == eraser and info["task"]["label"] == "church"


@pytest.mark.parametrize("fixture", PIPES)
def test_a_lora_of_layers_of_several_ranks_is_the_edit_at_scale_1(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    pipe = request.getfixturevalue(fixture)
    names = text_weights(pipe)
    edit = low_rank(pipe, names, [1 + i % 3 for i in range(len(names))])
    with edit.applied(pipe):
        expected, weights = draw(pipe), {name: named_weight(pipe, name).detach().clone() for name in names}
    made = lora(edit, pipe)
    assert made.rank == min(3, len(names)) and not made.cut and made.error < 1e-6
    # One rank in the file: loaders differ in the scale they give to layers of several ranks.
    assert {tensor.shape["lora_B" in name] for name, tensor in made.tensors.items()} == {made.rank}
    try:
        pipe.load_lora_weights(made.tensors)
        assert np.abs(draw(pipe) - expected).max() <= LEVELS
        for name, weight in weights.items():
            component, _, module = name.removesuffix(".weight").partition(".")
            layer = getattr(pipe, component).get_submodule(module)
            together = layer.base_layer.weight + layer.get_delta_weight("default_0")
            torch.testing.assert_close(together, weight, rtol=1e-5, atol=1e-6)
    finally:
        pipe.unload_lora_weights()


@pytest.mark.parametrize(
    ("fixture", "layers"),
    [
        ("tiny_random_pipe", ["text_encoder.encoder.layers.0.self_attn"]),
        ("tiny_random_sdxl_pipe", ["text_encoder.encoder.layers.1.self_attn", "text_encoder_2.text_model.encoder.layers.0.self_attn"]),
    ],
)  # fmt: skip
def test_a_lora_of_the_text_encoder_is_the_edit(
    fixture: str, layers: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    pipe = request.getfixturevalue(fixture)
    edit = low_rank(
        pipe, [f"{layer}.{part}.weight" for layer in layers for part in ("v_proj", "out_proj")], [2, 4] * len(layers)
    )
    made = lora(edit, pipe)
    assert all(".text_model." in name for name in made.tensors), "older releases keep the encoder there"
    before = encoded(pipe)
    with edit.applied(pipe):
        expected = encoded(pipe)
    assert (expected - before).abs().max() > 1e-2
    try:
        pipe.load_lora_weights(made.tensors)
        torch.testing.assert_close(encoded(pipe), expected, rtol=1e-5, atol=1e-5)
    finally:
        pipe.unload_lora_weights()


@pytest.mark.parametrize("eraser", [Cure(), Uce()])
def test_the_embedded_model_comes_back_by_its_cards(
    eraser, church_task: ErasureTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model("embedded", device="cpu")
    edit = eraser.edit(model.pipe, church_task)
    with edit.applied(model.pipe):
        expected = draw(model.pipe)
    for form in FORMS:
        out = tmp_path / form
        write_export(out, load_model("embedded", device="cpu"), edit, [edit.info], form=form, console=quiet())
        difference = np.abs(draw(load_by_card(out, monkeypatch)) - expected).max()
        # UCE's change is dense: its LoRA is cut where the relative error of each layer is below 1e-3.
        assert difference <= (LEVELS if form == "lora" else 0), form
    assert np.abs(draw(model.pipe) - expected).max() > 20, "the edit is seen"


def test_half_precision_is_kept_and_its_rounding_said(base: Path, church_task: ErasureTask, tmp_path: Path) -> None:
    model = load_model(str(base), device="cpu", dtype="bfloat16")
    edit = Cure().edit(model.pipe, church_task)
    with edit.applied(model.pipe):
        expected = {name: named_weight(model.pipe, name).detach().clone() for name in edit.changes}
    write_export(tmp_path / "out", model, edit, [edit.info], form="delta", console=quiet())
    found = load_file(tmp_path / "out" / DELTA_FILE)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    assert all(tensor.dtype == torch.bfloat16 for tensor in found.values())
    rounding = json.loads((tmp_path / "out" / MARK).read_text())["file"]["rounding"]
    assert (
        rounding > 0 and f"takes or adds {rounding:.2g} of the change" in (tmp_path / "out" / "README.md").read_text()
    )


# Ranks and errors


@settings(max_examples=25, deadline=None)
@given(rank=st.integers(1, 12), cut=st.integers(1, 12), seed=st.integers(0, 99), dense=st.booleans())
def test_the_stated_error_is_the_error_and_none_is_smaller(
    tiny_random_pipe, rank: int, cut: int, seed: int, dense: bool
) -> None:
    (name, *_) = text_weights(tiny_random_pipe)
    weight = named_weight(tiny_random_pipe, name)
    edit = low_rank(tiny_random_pipe, [name], [min(rank, weight.shape[0])], seed)
    whole = edit.changes[name].of(weight)
    made = lora(Edit({name: Change(delta=whole)}) if dense else edit, tiny_random_pipe, rank=cut)
    a, b = (made.tensors[f"{name.removesuffix('.weight')}.lora_{half}.weight"].double() for half in "AB")
    error = torch.linalg.norm(whole - b @ a) / torch.linalg.norm(whole)
    assert made.errors[name] == pytest.approx(error.item(), rel=1e-6, abs=1e-12)
    best = torch.linalg.svdvals(whole)[cut:].square().sum().sqrt() / torch.linalg.norm(whole)
    assert error.item() == pytest.approx(best.item(), rel=1e-4, abs=1e-6)
    assert made.cut == (cut < min(rank, *weight.shape)) and made.rank <= cut


def test_a_dense_change_gets_the_smallest_rank_within_the_tolerance(tiny_random_pipe) -> None:
    (name, *_) = text_weights(tiny_random_pipe)
    rows, width = named_weight(tiny_random_pipe, name).shape
    generator = torch.Generator().manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(rows, width, generator=generator, dtype=torch.float64), full_matrices=False)
    sizes = 8.0 ** -torch.arange(len(u.T), dtype=torch.float64)  # rank r leaves about 8^-r
    made = lora(Edit({name: Change(delta=(u * sizes) @ vh)}), tiny_random_pipe)
    assert made.cut and made.error < TOLERANCE and made.rank == 4
    assert lora(Edit({name: Change(delta=(u * sizes) @ vh)}), tiny_random_pipe, rank=3).error > TOLERANCE
    assert LARGEST == 128


def test_what_no_lora_can_hold_is_refused(tiny_random_pipe) -> None:
    cases = {
        "unet.conv_out.bias": (4, 1),
        "text_encoder.embeddings.token_embedding.weight": None,
        "text_encoder.encoder.layers.0.mlp.fc1.weight": None,
        "vae.decoder.mid_block.attentions.0.to_k.weight": None,
    }
    for name, shape in cases.items():
        shape = shape or named_weight(tiny_random_pipe, name).shape
        with pytest.raises(UserError, match=re.escape(name)):
            lora(Edit({name: Change(delta=torch.ones(*shape))}), tiny_random_pipe)
    with pytest.raises(UserError, match="changes nothing"):
        lora(Edit({}), tiny_random_pipe)
    with pytest.raises(UserError, match="rank=0"):
        lora(low_rank(tiny_random_pipe, text_weights(tiny_random_pipe)[:1], [1]), tiny_random_pipe, rank=0)


class Acts(Hook):
    """A hook, for the test below."""

    name = "test_acts"


def test_what_acts_while_sampling_is_in_no_weights_and_refused_by_name(
    base: Path, tiny_random_pipe, church_task: ErasureTask, tmp_path: Path
) -> None:
    weights = Cure().edit(tiny_random_pipe, church_task)
    both = Edit(weights.changes, weights.info | {"method": "guarded"}, (Acts(),))
    file = both.save(tmp_path / "both.safetensors")
    refusal = r"eraser guarded: .* acts while images are sampled \(test_acts\).*erasebench run"
    with pytest.raises(UserError, match=refusal):
        lora(both, tiny_random_pipe)
    with pytest.raises(UserError, match=refusal):
        both.apply(tiny_random_pipe)
    for form in FORMS:
        with pytest.raises(UserError, match=refusal):
            export(form, edit=str(file), model=str(base), out=str(tmp_path / "out"), console=quiet())
    with pytest.raises(UserError, match=refusal):
        apply([str(file)], str(base), str(tmp_path / "out"), console=quiet())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["delta", "diffusers"])
def test_new_weights_of_any_shape_are_there_bit_for_bit(
    form: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["unet.conv_in.weight", "unet.conv_norm_out.bias", "text_encoder.embeddings.position_embedding.weight"]
    model = load_model(str(base), device="cpu")
    values = {name: torch.randn_like(named_weight(model.pipe, name)) for name in names}
    edit = Edit({name: Change(value=value) for name, value in values.items()}, {"method": "trained", "trained": True})
    with pytest.raises(UserError, match=re.escape(names[0])):
        lora(edit, model.pipe)
    out = tmp_path / "out"
    write_export(out, model, edit, [edit.info], form=form, console=quiet())
    pipe = load_by_card(out, monkeypatch, base)
    for name, value in values.items():
        assert torch.equal(named_weight(pipe, name), value)
    card = (out / "README.md").read_text()
    assert "New weights were trained" in card and "nothing was trained" not in card


def test_a_trained_linear_layer_is_a_lora_within_the_tolerance(tiny_random_pipe) -> None:
    name = text_weights(tiny_random_pipe)[0]
    weight = named_weight(tiny_random_pipe, name).detach()
    step = torch.outer(torch.arange(weight.shape[0]), torch.ones(weight.shape[1])) / 99
    factors = lora(Edit({name: Change(value=weight + step)}), tiny_random_pipe)
    assert factors.rank == 1 and factors.error < TOLERANCE


def test_a_card_says_of_training_what_the_notes_say() -> None:
    def said(*trained: bool | None) -> str:
        infos = [{"method": "x"} | ({} if one is None else {"trained": one}) for one in trained]
        return model_card(replace(hostile(), edits=infos, how="sum"))

    assert "nothing was trained" in said(False) and "nothing was trained" in said(False, False)
    assert "New weights were trained" in said(True, True)
    assert "Some of the new weights were trained" in said(True, False)
    for older in (said(None), said(None, False)):
        assert not re.search(r"(was|were) trained|closed form", older)


# The command


def test_the_command_exports_and_says_rank_and_error(
    finished: Path, small_pipe, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "eraser=cure", "task=church", "format=lora", f"store={finished}"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    (out,) = (finished / "exports").glob("cure-church-*-lora")
    assert str(out) in shown and re.search(r"LoRA of rank \d+ in float32", shown)
    assert {path.name for path in out.iterdir()} == {FILE, MARK, "README.md"}
    assert re.search(r"rank \d+ in float32", (out / "README.md").read_text())
    assert main(arguments) == 2 and "already there" in capsys.readouterr().err
    pytest.importorskip("peft")
    pipe = small_pipe()
    before = draw(pipe)
    pipe.load_lora_weights(str(out))  # finds the file by its name
    loaded = draw(pipe)
    pipe.fuse_lora()
    assert np.abs(loaded - before).max() > 3 * LEVELS and np.abs(draw(pipe) - loaded).max() <= LEVELS


def test_an_edit_is_found_by_the_first_digits_of_its_key_and_by_its_file(finished: Path, tmp_path: Path) -> None:
    path = next(finished.glob("edits/*.safetensors"))
    for text in (path.stem, path.stem[:8], str(path)):
        found = find_edit(Store(finished), text)
        assert found.key == path.stem and found.run.name == "mine"
        assert found.effect != NOT_MEASURED and found.model["name"] == "small"
    elsewhere = tmp_path / "mine.safetensors"
    elsewhere.write_bytes(path.read_bytes())
    assert find_edit(Store(finished), str(elsewhere)).run is None
    info = dict(Edit.load(elsewhere).info)
    info.pop("model", None)
    Edit(Edit.load(elsewhere).changes, info).save(elsewhere)
    with pytest.raises(UserError, match="give model="):
        export("delta", edit=str(elsewhere), out=str(tmp_path / "out"), store=str(finished), console=quiet())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": None}, "format must be given"),
        ({"format": "lroa"}, "Did you mean 'lora'"),
        ({"run": "mien"}, "Did you mean 'mine'"),
        ({"eraser": "cuer"}, "Did you mean 'cure'"),
        ({"task": "churches"}, "Did you mean 'church'"),
        ({}, r'has 6 edits; say which one[\s\S]*"eraser=uce" "task=gas pump"'),
        ({"eraser": "uce"}, "has 2 edits"),
        ({"eraser": "none"}, "none of that name"),
        ({"format": "delta", "rank": 4}, "only a LoRA has a rank"),
        ({"edit": "zz"}, "not the key of an edit"),
        ({"edit": "00000000"}, "no edit in"),
        ({"edit": "abcd", "eraser": "uce"}, "leave out"),
        ({"edit": "../x.safetensors"}, "no such edit"),
    ],
)
def test_what_cannot_be_right_is_refused_and_nothing_written(
    arguments: dict, message: str, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        export(
            **({"format": "lora", "out": str(tmp_path / "out"), "store": str(finished), "console": quiet()} | arguments)
        )
    assert not list(tmp_path.iterdir())


def test_arguments_are_key_value_and_known() -> None:
    assert export_settings(["format=lora", "eraser=cure alpha=5", "rank=3"]) == {
        "format": "lora", "eraser": "cure alpha=5", "rank": 3,
    }  # fmt: skip
    for text, message in {
        "lora": "key=value",
        "fromat=lora": "'format'",
        "rank=0": "1 or more",
        "rank=x": "whole",
    }.items():
        with pytest.raises(UserError, match=message):
            export_settings([text])
    with pytest.raises(UserError, match="twice"):
        export_settings(["task=a", "task=b"])


def test_other_weights_than_those_of_the_run_are_refused(finished: Path, small_pipe, tmp_path: Path) -> None:
    other = small_pipe()
    with torch.no_grad():
        other.unet.conv_in.weight.add_(1)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="erasebench apply"):
        export(
            "delta", eraser="cure", task="church", model=str(tmp_path / "other"), out=str(tmp_path / "out"),
            store=str(finished), console=quiet(),
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_write_that_fails_leaves_nothing(
    base: Path, church_task: ErasureTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, *_: object) -> None:
        # What cleaning up after a killed export recognises as ours.
        assert re.fullmatch(r"\.erasebench-\d+-[0-9a-f]{12}\.tmp", folder.name)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("erasebench.export.export.write_marks", full)
    model = load_model(str(base), device="cpu")
    edit = Cure().edit(model.pipe, church_task)
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="no space is left"):
        write_export(tmp_path / "in" / "out", model, edit, [edit.info], form="delta", console=quiet())
    assert not list((tmp_path / "in").iterdir())


# Marks


def test_a_mark_that_cannot_be_read_does_not_pass_for_no_mark(tmp_path: Path) -> None:
    assert read_marks(tmp_path) == ()
    for text in ("{", "[]", '{"format": "other", "edits": []}', '{"format": "erasebench mark 1", "edits": [3]}'):
        (tmp_path / MARK).write_text(text)
        with pytest.raises(UserError, match="cannot be read"):
            read_marks(tmp_path)


# The card


def hostile() -> Card:
    name = "*evil* [x](http://e.com) <b>|`\n# Head\u202e"
    task = ErasureTask((Concept(name, "object", ("```\n<script>", '"""; import os')),), ("a|b",))
    info = {
        "method": "uce",
        "version": "1",
        "settings": {"anchor": "```\n# x"},
        "task": {"label": task.label, "kind": "object", "targets": [{"name": name, "phrases": task.targets[0].phrases}],
                 "retain": task.retain},
    }  # fmt: skip
    base = {
        "name": "sd14",
        "source": "CompVis/stable-diffusion-v1-4",
        "revision": "abc",
        "family": "sd1",
        "dtype": "float16",
    }
    return Card(base, "StableDiffusionPipeline", [info], "lora", ["unet.a.attn2.to_k.weight"])


def test_names_have_no_meaning_in_a_card() -> None:
    text = model_card(hostile())
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["base_model"] == "CompVis/stable-diffusion-v1-4"
    assert yaml.safe_load(front)["library_name"] == "diffusers"
    outside = re.sub(r"^```.*?^```$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<|(?<!\\)\[|^# Head", outside, re.MULTILINE) and "\u202e" not in text
    assert body.count("\n# ") == 1 and len(re.findall(r"^```", body, re.MULTILINE)) == 4
    compile(re.search(r"```python\n(.*?)\n```", body, re.DOTALL)[1], "card", "exec")


NUMBERS = "| measured | unedited |\n|---|---|\n| judge | 1 |"


def test_a_card_says_what_was_tried_and_claims_no_number_that_is_not_there() -> None:
    info = {"method": "random", "trained": False, "task": {"targets": [{"name": "church", "phrases": ["church"]}]}}
    card = replace(hostile(), edits=[info])
    for form in FORMS:
        text = model_card(replace(card, form=form))
        assert NOT_MEASURED in text and "numbers" not in text.split("## Measured effect")[1].replace(NOT_MEASURED, "")
        assert "random edited to erase church" in text and not re.search(r"erased by|church erased", text)
        assert ("No safety checker is in this folder" in text) == (form == "diffusers")
        measured = model_card(replace(card, form=form, effect=NUMBERS))
        assert NUMBERS in measured and "hold for the prompts they were measured on" in measured
        assert ("those of the edit itself" in measured) == (form == "lora"), (
            "a LoRA may be another thing than was measured"
        )
        assert "already carries" not in measured


@pytest.mark.parametrize("how", ["sum", "sequence", ""])
def test_a_card_of_several_edits_says_what_its_numbers_compare(how: str) -> None:
    infos = [{"method": name, "task": {"targets": [{"name": name.upper()}]}} for name in ("uce", "cure", "rece")]
    text = model_card(replace(hostile(), edits=infos, how=how, effect=NUMBERS))
    assert "uce and cure and rece edited to erase UCE, CURE, RECE" in text
    assert 'called "unedited" here is the base model, which already carries the first 2 edits above' in text
    assert {"sum": "are summed", "sequence": "to the weights that those before it left", "": "on top of each other"}[
        how
    ] in text
    assert "already carries the first edit above" in model_card(replace(hostile(), edits=infos[:2], effect=NUMBERS))
    assert "already carries" not in model_card(replace(hostile(), edits=infos, how=how))


def test_an_edit_of_an_edited_model_is_not_compared_with_the_unedited_one(
    base: Path, church_task: ErasureTask, tmp_path: Path
) -> None:
    first = Cure().edit(load_model(str(base), device="cpu").pipe, church_task)
    file = first.save(tmp_path / "first.safetensors")
    apply([str(file)], str(base), str(tmp_path / "edited"), console=quiet())
    text = (tmp_path / "edited" / "README.md").read_text()
    assert "cure edited to erase church" in text and NOT_MEASURED in text
    model = load_model(str(tmp_path / "edited"), device="cpu")
    second = replace(first, info=first.info | {"method": "again"})
    infos = [*model.edits, second.info]
    write_export(tmp_path / "out", model, second, infos, form="delta", effect=NUMBERS, console=quiet())
    text = (tmp_path / "out" / "README.md").read_text()
    assert "cure and again edited to erase church" in text and "already carries the first edit above" in text


def test_a_card_has_the_rows_of_its_eraser_and_task_and_keeps_not_run(tmp_path: Path) -> None:
    plan = make_plan()
    why = {METRICS[1].id: "no weights; fetch them"}
    measured = tables.measure(plan, make_scores(plan), METRICS, not_run_because=why, costs=make_costs(plan))
    about = About("small (r)", "p v1", {"object": "set v1", "artist": "no"}, embedded=True)
    write_tables(measured, tmp_path / "tables", about)
    about.write(tmp_path)
    text = measured_effect(tmp_path, "cure", "object", "church")
    lines = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    }
    row = measured[
        (measured.eraser == "cure")
        & (measured.task == "church")
        & (measured.metric == "classifier@1")
        & (measured.role == "erase")
    ].iloc[0]
    before, after, difference, count = lines["recognised by classifier % erased ↓"]
    assert after == f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    assert before.startswith("100.0 [") and difference.startswith("-100.0") and count == str(row.n)
    assert lines["text\\_match kept ↑"][1:] == ["not run"] * 3
    assert "no weights; fetch them" in text and "Numbers of the embedded model" in text
    assert "set v1" in text and "no." not in text.replace("number", "") and "classifier\\@1" in text
    assert measured_effect(tmp_path, "rece", "object", "church") == NOT_MEASURED
    assert measured_effect(tmp_path / "nowhere", "cure", "object", "church") == NOT_MEASURED


def test_a_card_of_a_run_has_its_numbers_and_no_path(finished: Path, base: Path, tmp_path: Path) -> None:
    out = export(
        "diffusers",
        run="mine",
        eraser="uce",
        task="gas pump",
        out=str(tmp_path / "out"),
        store=str(finished),
        console=quiet(),
    )
    for name in ("README.md", MARK):
        text = (out / name).read_text()
        assert str(base.parent) not in text and str(finished) not in text
    text = (out / "README.md").read_text()
    assert "judge" in text and "95 % intervals" in text and "gas pump" in text and "embedded v1" in text
    assert isinstance(load_model(str(out), device="cpu"), Model)
