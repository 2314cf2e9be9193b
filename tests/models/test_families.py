"""SD 2, SDXL, SD 3 and FLUX: text is read as their pipelines read it, and the closed-form erasers edit what reads it."""

from __future__ import annotations

import copy
import dataclasses
import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from checker_helpers import save_checker
from safetensors.torch import save_file
from training_helpers import shrunk, work_in

from erasebench.commands.list import eraser_classes, listing, support
from erasebench.concepts import Concept, ErasureTask
from erasebench.config.build import build, places
from erasebench.config.choices import groups
from erasebench.config.compose import compose
from erasebench.edits.edit import Edit
from erasebench.edits.eraser import Eraser
from erasebench.errors import UserError
from erasebench.methods.closed_form.cure import Cure
from erasebench.methods.closed_form.linear import ClosedForm, pair_rows
from erasebench.methods.closed_form.rece import Rece
from erasebench.methods.closed_form.uce import Uce
from erasebench.models.load import FAMILIES
from erasebench.models.targets import TEXT_INPUTS, denoiser, named_weight, text_inputs
from erasebench.models.text import TOKEN_RULES, Pooled, Texts, truncated_texts
from erasebench.models.text_t5 import t5_length
from erasebench.run import run
from erasebench.store import Store

TEXTS = ["a church", "", "van gogh", "a church"]
LENGTHS = {"a church": 9, "": 0, "van gogh": 9}
"""Content tokens of the character tokenizers: CLIP has one a letter, T5 also one for each start of a word."""

CLIP_LENGTHS = {"a church": 7, "": 0, "van gogh": 7}

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def pipe_of(request, family: str):
    return request.getfixturevalue(f"tiny_random_{family}_pipe")


def pipeline_encoding(pipe, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [positions, d] and pooled text [p] as the pipeline itself makes them."""
    with torch.no_grad():
        if "Flux" in type(pipe).__name__:
            rows, pooled, _ = pipe.encode_prompt(text, None)
        else:
            rows, _, pooled, _ = pipe.encode_prompt(text, None, None, do_classifier_free_guidance=False)
    return rows[0], pooled[0]


# Text


@pytest.mark.parametrize(("family", "positions"), [("sd3", 77 + 256), ("flux", 512)])
def test_all_rows_and_the_pooled_text_are_those_of_the_pipeline(request, family, positions):
    pipe = pipe_of(request, family)
    for text, rows, pooled in zip(TEXTS, Texts(pipe).rows(TEXTS, "all"), Pooled(pipe).rows(TEXTS, "all"), strict=True):
        expected_rows, expected_pooled = pipeline_encoding(pipe, text)
        assert rows.shape[0] == positions
        torch.testing.assert_close(rows, expected_rows, **CLOSE)
        torch.testing.assert_close(pooled[0], expected_pooled, **CLOSE)


def test_sd3_without_t5_has_the_rows_of_clip_alone(small_sd3_pipe):
    pipe = small_sd3_pipe(t5=False)
    (rows,) = Texts(pipe).rows(["a church"], "all")
    expected, _ = pipeline_encoding(pipe, "a church")
    torch.testing.assert_close(rows, expected[:77], **CLOSE)
    assert not expected[77:].any()  # what the pipeline puts in place of T5
    assert len(Texts(pipe).rows(["a church"], "last_content")[0]) == 1


T5_ROWS = {
    "last_content": lambda n: [max(n - 1, 0)],
    "content": lambda n: list(range(n)),
    "content_eos": lambda n: list(range(n + 1)),
    "eos": lambda n: [n],
    "tail": lambda n: list(range(max(n - 1, 0), 512)),
    "all": lambda n: list(range(512)),
    "no_bos": lambda n: list(range(512)),
}


@pytest.mark.parametrize("rule", TOKEN_RULES)
def test_rules_of_t5_pick_the_rows_they_name(tiny_random_flux_pipe, rule):
    pipe = tiny_random_flux_pipe
    for text, rows in zip(TEXTS, Texts(pipe).rows(TEXTS, rule), strict=True):
        whole, n = pipeline_encoding(pipe, text)[0], LENGTHS[text]
        expected = whole[: n + 1].mean(dim=0, keepdim=True) if rule == "mean" else whole[T5_ROWS[rule](n)]
        torch.testing.assert_close(rows, expected, **CLOSE)


@pytest.mark.parametrize("rule", TOKEN_RULES)
def test_sd3_has_clips_rows_by_the_rule_and_then_t5s(tiny_random_sd3_pipe, rule):
    pipe = tiny_random_sd3_pipe
    clip, t5 = Texts(pipe).parts(TEXTS, rule)
    for text, both, first, second in zip(TEXTS, Texts(pipe).rows(TEXTS, rule), clip, t5, strict=True):
        assert torch.equal(both, torch.cat([first, second]))
        whole, _ = pipeline_encoding(pipe, text)
        if rule == "last_content":
            expected = whole[[CLIP_LENGTHS[text], 77 + max(LENGTHS[text] - 1, 0)]]
        elif rule == "eos":
            expected = whole[[CLIP_LENGTHS[text] + 1, 77 + LENGTHS[text]]]
        elif rule == "tail":
            expected = torch.cat([whole[CLIP_LENGTHS[text] : 77], whole[77 + max(LENGTHS[text] - 1, 0) :]])
        else:
            continue
        torch.testing.assert_close(both, expected, **CLOSE)


def test_one_row_can_be_asked_for_before_all_of_them(tiny_random_flux_pipe):
    texts = Texts(tiny_random_flux_pipe)
    first = texts.rows(["a church"], "last_content")[0]
    whole = texts.rows(["a church"], "all")[0]
    assert torch.equal(first[0], texts.rows(["a church"], "last_content")[0][0])
    torch.testing.assert_close(first[0], whole[LENGTHS["a church"] - 1], **CLOSE)


def test_t5_is_given_each_text_once_and_always_at_full_length(tiny_random_flux_pipe):
    seen = []
    handle = tiny_random_flux_pipe.text_encoder_2.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(args[0].shape)), with_kwargs=True
    )
    try:
        texts = Texts(tiny_random_flux_pipe)
        texts.rows(TEXTS, "content_eos")
        texts.rows(TEXTS, "last_content")
    finally:
        handle.remove()
    assert seen == [(3, t5_length(tiny_random_flux_pipe))]


@pytest.mark.parametrize("rule", TOKEN_RULES)
def test_the_pooled_text_is_one_row_whatever_the_rule(request, rule):
    for family, width in (("sd3", 28), ("flux", 12)):
        pooled = Pooled(pipe_of(request, family))
        assert [tuple(row.shape) for row in pooled.rows(TEXTS, rule)] == [(1, width)] * 4


def test_what_t5_does_not_read_is_named(request):
    for family, length in (("sd3", 256), ("flux", 512)):
        pipe = pipe_of(request, family)
        assert truncated_texts(pipe, ["b" * 100]) == {}  # behind CLIP's last position, but T5 reads it
        assert truncated_texts(pipe, ["b" * (length - 2)]) == {}  # one token starts the word, one is EOS
        assert list(truncated_texts(pipe, ["b" * (length - 2) + " church"]).values()) == ["church"]


def test_sdxl_rows_are_both_encoders_side_by_side(tiny_random_sdxl_pipe):
    pipe = tiny_random_sdxl_pipe
    with torch.no_grad():
        expected = pipe.encode_prompt("a church", device="cpu", do_classifier_free_guidance=False)[0][0]
    (part,) = text_inputs(pipe)
    assert part.width == 16 + 12
    torch.testing.assert_close(part.rows(["a church"], "all")[0], expected.double(), **CLOSE)
    torch.testing.assert_close(part.rows(["a church"], "eos")[0], expected[8:9].double(), **CLOSE)


# Where text enters


def test_the_text_inputs_of_each_family(request):
    for family in ("sd2", "sdxl"):
        assert [part.name for part in text_inputs(pipe_of(request, family))] == ["cross_attention"]
    for family, widths in (("sd3", (36, 28)), ("flux", (20, 12))):
        pipe = pipe_of(request, family)
        parts = text_inputs(pipe)
        assert [(part.name, part.width) for part in parts] == list(
            zip(("context_embedder", "pooled"), widths, strict=True)
        )
        assert [list(part.weights) for part in parts] == [
            ["transformer.context_embedder.weight"],
            ["transformer.time_text_embed.text_embedder.linear_1.weight"],
        ]
        (joint,) = text_inputs(pipe, "joint_attention")
        assert len(joint.weights) == 2 * 2  # keys and values of two joint blocks
        assert joint.width == pipe.transformer.inner_dim
        both = text_inputs(pipe, "pooled+joint_attention")
        assert [part.name for part in both] == ["pooled", "joint_attention"]
        for part in [*parts, joint]:
            assert part.name in TEXT_INPUTS
            assert all(named_weight(pipe, name) is weight for name, weight in part.weights.items())
            assert all(row.shape[1] == part.width for row in part.rows(TEXTS, "content_eos"))


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_text_reaches_the_transformer_through_these_weights_only(request, family):
    pipe = copy.deepcopy(pipe_of(request, family))
    inputs = [pipeline_encoding(pipe, text) for text in ("a church", "van gogh")]

    def outputs():
        noise = torch.Generator().manual_seed(0)
        made = []
        for rows, pooled in inputs:
            noise.manual_seed(0)
            latents = torch.randn(1, 4, 8, 8, generator=noise)
            text = {"encoder_hidden_states": rows[None], "pooled_projections": pooled[None]}
            if family == "flux":
                latents = pipe._pack_latents(latents, 1, 4, 8, 8)
                text |= {
                    "guidance": torch.ones(1),
                    "txt_ids": torch.zeros(len(rows), 3),
                    "img_ids": pipe._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32),
                }
            with torch.no_grad():
                made.append(pipe.transformer(latents, timestep=torch.tensor([0.5]), **text).sample)
        return made

    assert not torch.equal(*outputs())
    with torch.no_grad():
        for part in text_inputs(pipe):
            for weight in part.weights.values():
                weight.zero_()
    assert torch.equal(*outputs())


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_joint_attention_rows_are_the_first_blocks_input_before_modulation(request, family):
    pipe = pipe_of(request, family)
    seen = []
    handle = pipe.transformer.transformer_blocks[0].norm1_context.norm.register_forward_hook(
        lambda module, args, output: seen.append(output[0].double())
    )
    try:
        pipe("a church", num_inference_steps=1, width=16, height=16, guidance_scale=1.0, output_type="latent")
    finally:
        handle.remove()
    (part,) = text_inputs(pipe, "joint_attention")
    torch.testing.assert_close(part.rows(["a church"], "all")[0], seen[0], **CLOSE)


def test_a_pair_never_goes_from_one_encoder_to_the_other(tiny_random_sd3_pipe):
    part = text_inputs(tiny_random_sd3_pipe, "context_embedder")[0]
    (concept, anchor), *_ = pair_rows(part, [("a church", ""), ("van gogh", "")], "tail")
    rows = 77 - CLIP_LENGTHS["a church"]
    assert len(concept) == len(anchor) == rows + 256 - (LENGTHS["a church"] - 1)
    # CLIP's rows are 28 wide and end in zeros; T5's are not.
    for side in (concept, anchor):
        assert not side[:rows, 28:].any() and side[rows:, 28:].all(dim=1).all()
    one_encoder = text_inputs(tiny_random_sd3_pipe, "pooled")[0].pairs([("a church", "")], "tail")
    assert [tuple(side.shape) for side in one_encoder[0]] == [(1, 28), (1, 28)]
    assert pair_rows(part, [], "tail") == []


def test_what_a_network_does_not_have_is_refused_with_what_it_has(request):
    with pytest.raises(UserError, match="FluxPipeline has no text input 'cross_attention'.*context_embedder, pooled"):
        text_inputs(pipe_of(request, "flux"), "cross_attention")
    with pytest.raises(UserError, match="Did you mean 'pooled'"):
        text_inputs(pipe_of(request, "sd3"), "context_embedder+poled")
    with pytest.raises(UserError, match="has no text input 'pooled'.* It has: cross_attention"):
        text_inputs(pipe_of(request, "sdxl"), "pooled")


def test_a_transformer_of_another_kind_is_refused(small_flux_pipe):
    pipe = small_flux_pipe()
    pipe.transformer.context_embedder = None
    with pytest.raises(UserError, match=r"FluxPipeline \(FluxTransformer2DModel\): text does not enter"):
        text_inputs(pipe)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused_by_name(small_flux_pipe, dtype):
    pipe = small_flux_pipe()
    layer = pipe.transformer.context_embedder
    layer.weight = torch.nn.Parameter(layer.weight.detach().to(dtype), requires_grad=False)
    with pytest.raises(UserError, match=r"transformer.context_embedder.weight: torch\..*without quantisation"):
        text_inputs(pipe)


def test_offloaded_weights_are_refused_by_name(small_sd3_pipe):
    pipe = small_sd3_pipe()
    layer = pipe.transformer.time_text_embed.text_embedder.linear_1
    layer.weight = torch.nn.Parameter(layer.weight.to("meta"))
    with pytest.raises(UserError, match=r"linear_1.weight: the weight is offloaded"):
        text_inputs(pipe)


# Edits

TASK = ErasureTask((Concept("church", "object", anchor="art"),), ("gas pump",))


def image(pipe) -> torch.Tensor:
    made = pipe(
        "a church",
        num_inference_steps=2,
        width=16,
        height=16,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    )
    return made.images


@pytest.mark.parametrize(
    "eraser",
    [Cure(alpha=5.0), Cure(token_rule="tail"), Uce(variant="2023"), Uce(variant="2025"), Rece(epochs=1)],
    ids=["cure", "cure_tail", "uce2023", "uce2025", "rece"],
)
@pytest.mark.parametrize(
    ("family", "where"),
    [
        *((family, "auto") for family in ("sd2", "sdxl", "sd3", "flux")),
        *((family, "joint_attention") for family in ("sd3", "flux")),
    ],
)
def test_erasers_edit_every_family_and_take_it_back(request, family, eraser, where, tmp_path):
    eraser = dataclasses.replace(eraser, where=where)
    assert isinstance(eraser, ClosedForm) and family not in eraser.unsupported
    pipe = pipe_of(request, family)
    parts = text_inputs(pipe, where)
    before = {name: weight.detach().clone() for part in parts for name, weight in part.weights.items()}
    original = image(pipe)
    made = eraser.edit(pipe, TASK)
    assert list(made.changes) == list(before)
    assert made.info["where"] == "+".join(part.name for part in parts)
    edit = Edit.load(made.save(tmp_path / "edit.safetensors"))
    with edit.applied(pipe):
        # One token alone in its text has nothing but itself to lose under some rules, so not every weight must move.
        assert any(not torch.equal(named_weight(pipe, name), weight) for name, weight in before.items())
        assert not torch.equal(image(pipe), original)
    assert all(torch.equal(named_weight(pipe, name), weight) for name, weight in before.items())
    assert torch.equal(image(pipe), original)


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_with_its_bias_the_edited_layer_gives_the_concept_the_anchors_output(request, family):
    """The layers have biases. What leaves the layer, bias and all, must be the anchor's output: b once, not twice."""
    pipe = pipe_of(request, family)
    eraser = Uce(variant="2025", lam=1e-9, preserve="none")
    for part in text_inputs(pipe):
        (name,) = part.weights
        layer = pipe.transformer.get_submodule(name.removeprefix("transformer.").removesuffix(".weight"))
        assert layer.bias.abs().max() > 0.01  # else there would be nothing to count twice
        concept, anchor, other = (rows.float() for rows in part.rows(["church", "art", "gas pump"], "last_content"))
        with torch.no_grad():
            goal, bystander = layer(anchor), layer(other)
            bias = layer.bias.clone()
            with eraser.edit(pipe, TASK).applied(pipe):
                torch.testing.assert_close(layer(concept), goal, atol=2e-4, rtol=1e-3)
                assert torch.equal(layer.bias, bias)
                assert not torch.allclose(layer(other), goal, atol=1e-2)
            assert torch.equal(layer(other), bystander)


# The table of what edits what


def erasers_of(option: str) -> list:
    config = compose([f"method={option}"])
    return [build(node, place, Eraser) for place, node in places(config.method, "method", "_target_").items()]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("option", [name for name in groups()["method"] if "/" not in name])  # these are settings
def test_what_the_table_says_an_eraser_edits_it_edits(request, option, family, tmp_path):
    pipe = pipe_of(request, family) if family != "sd1" else request.getfixturevalue("tiny_random_pipe")
    reasons = [kind.unsupported[family] for kind in eraser_classes(option) if family in kind.unsupported]
    assert all(len(reason) > 10 for reason in reasons)
    if not reasons:
        model = SimpleNamespace(pipe=pipe, family=family, revision="r")
        for number, eraser in enumerate(erasers_of(option)):
            if eraser.name == "retrained":  # its files are made by a training of their own
                part = next(name for name, module in pipe.components.items() if module is denoiser(pipe))
                weights = {f"{part}.{name}": weight.contiguous() for name, weight in denoiser(pipe).named_parameters()}
                about = {"without": list(TASK.names), "model": "r"}
                save_file(weights, tmp_path / "one.safetensors", {"retrained": json.dumps(about)})
                eraser = dataclasses.replace(eraser, folder=str(tmp_path))
            if eraser.name == "safety_checker":  # its weights are on the Hub alone
                checker = save_checker(tmp_path / "checker", ["a knife"], 0.5)
                eraser = dataclasses.replace(eraser, checker=str(checker), revision=None)
            assert bool(eraser.refuses(model)) == (family in eraser.partly)  # FLUX.1-dev is what is asked here
            if eraser.trains:
                eraser = shrunk(eraser, iterations=1)
            edit = eraser.edit(pipe, TASK, work=work_in(tmp_path / str(number)))
            with edit.applied(pipe):
                pass
            assert edit.changes or edit.hooks or eraser.name == "none"


def test_the_table_is_complete_and_fits_a_terminal():
    table = support(groups()["method"])
    lines = table.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[1].split() == list(FAMILIES)
    cells = {line.split()[0]: line.split()[1:] for line in lines[2 : 2 + len(groups()["method"])]}
    assert list(cells) == groups()["method"]
    assert cells["cure"] == cells["uce"] == cells["rece"] == ["yes"] * 5
    assert cells["esd"][:3] == ["yes", "yes", "no"]
    assert cells["negative_prompt"][:5] == ["yes"] * 4 + ["some"]
    assert "FLUX.1-dev takes guidance as an input" in table
    assert table in listing("models") and table in listing() and table not in listing("erasers")


def test_the_table_says_why_not_and_looks_into_erasers_made_of_others(monkeypatch):
    monkeypatch.setattr(Cure, "unsupported", {"flux": "CURE says no", "sd3": "for another reason"})
    monkeypatch.setattr(Uce, "unsupported", {"sd3": "UCE says no"})
    lines = support(["compose", "cure", "random", "uce"]).splitlines()
    assert [line.split(maxsplit=1) for line in lines[2:6]] == [
        ["compose", "yes      yes      yes      no [1]   no [2]"],
        ["cure", "yes      yes      yes      no [3]   no [2]"],
        ["random", "yes      yes      yes      no [3]   no [2]"],
        ["uce", "yes      yes      yes      no [1]   yes"],
    ]
    assert lines[-3:] == ["  [1] UCE says no", "  [2] CURE says no", "  [3] for another reason"]


# The whole walk


@pytest.mark.parametrize(("family", "protocol"), [("sd3", "flow"), ("flux", "flow_flux")])
def test_a_run_erases_and_makes_images_and_is_told_of_a_sampler_that_does_not_fit(request, family, protocol, tmp_path):
    pipe_of(request, family).save_pretrained(tmp_path / "model")
    shared = [
        f"model.path={tmp_path / 'model'}", "model=folder", "model.name=small", f"store.dir={tmp_path / 'results'}",
        "method=uce2025", "task=object", "task.erase=[church]", "task.concepts=[church,tench,castle,gas pump]",
        "metric=[]", "protocol.size=16", "protocol.steps=1",
        "protocol.prompt_size=false", "prompts.per_erased=1",
        "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=1", "prompts.general=1",
        "device=cpu", "batch_size=4",
    ]  # fmt: skip
    with pytest.raises(UserError, match=f"DDIMScheduler does not suit .*use protocol={protocol}"):
        run(compose([*shared, "protocol=default"]))
    with pytest.raises(UserError, match=f"method mace_cfr: cannot edit small .{family}.: .*erasebench list models"):
        run(compose([*shared, f"protocol={protocol}", "method=mace_cfr"]))
    done = run(compose([*shared, f"protocol={protocol}"]))
    records = Store(tmp_path / "results").image_records().set_index("key")
    plan = pd.read_parquet(done.folder / "plan.parquet")
    church = plan[(plan.eraser != "none") & (plan.prompt.str.contains("church"))].iloc[0]
    assert records.pixels_sha256[church.key] != records.pixels_sha256[church.original_key]
