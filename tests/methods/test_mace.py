"""MACE: refinement and fusion equal their literal transcriptions, and do what they promise in the limits."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from literal import mace_fuse, mace_refine
from safetensors.torch import save_file
from text_helpers import pick

from erasebench.concepts import Concept, ErasureTask
from erasebench.errors import UserError
from erasebench.methods.closed_form import fusion, mace
from erasebench.methods.closed_form.fusion import fuse, read_lora, template_rows
from erasebench.methods.closed_form.linear import gram, moved, pull
from erasebench.methods.closed_form.mace import ARTIST, OBJECT, MaceCfr, pull_sums, span
from erasebench.models.targets import key_value_weights, text_inputs
from erasebench.models.text import Texts

CHURCH = Concept("church", "object", ("church", "small chapel"), "sky")
TASK = ErasureTask((CHURCH, Concept("gas pump", "object", anchor="a tree")), ("tench", ""))
PAIRS = [("church", "sky"), ("small chapel", "sky"), ("gas pump", "a tree")]
FEW = ["a {}", "{} at night, in colour", "the {} of a man"]


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def letters(text):
    """Tokens of a text of the tests' tokenizer: its characters."""
    return len(text.replace(" ", ""))


def literal_pair(pipe, template, phrase, anchor):
    """All rows but the phrase's own, by counting letters: before, after, cut to the shorter."""
    start = 1 + letters(template.split("{}")[0])
    halves = []
    for text in (phrase, anchor):
        rows = pick(pipe, template.replace("{}", text), "all")
        halves.append(torch.cat([rows[:start], rows[start + letters(text) :]]))
    length = min(map(len, halves))
    return halves[0][:length], halves[1][:length]


def literal_pairs(pipe, templates, pairs=PAIRS):
    return [literal_pair(pipe, template, *pair) for pair in pairs for template in templates]


def assert_equal(pipe, edit, **options):
    for name, weight in key_value_weights(pipe).items():
        weight = weight.detach().double()
        expected = mace_refine(weight, **options) - weight
        assert torch.linalg.norm(expected) > 0.01 * torch.linalg.norm(weight), "an empty edit would prove nothing"
        assert torch.linalg.norm(edit.changes[name].of(weight) - expected) < 1e-8 * torch.linalg.norm(expected), name


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def full_pipe(small_pipe):
    """As ``exact_pipe``, and its rows span every direction, as those of trained models do (lam may be 0)."""
    pipe = small_pipe()
    pipe.text_encoder.double()
    torch.nn.init.normal_(pipe.text_encoder.final_layer_norm.bias)
    return pipe


# Stage 1 -------------------------------------------------------------------------------------------------------------


def test_refinement_equals_its_loop(exact_pipe):
    edit = MaceCfr(domain="none", lam=3.0, templates=FEW).edit(exact_pipe, TASK)
    pairs = literal_pairs(exact_pipe, FEW)
    assert_equal(exact_pipe, edit, pairs=pairs, preserved=[], lam=3.0)
    assert edit.info["tokens"]["edit"] == sum(len(old) for old, _ in pairs)


def test_thirty_sentences_and_the_defaults_of_a_kind(exact_pipe):
    task = ErasureTask((Concept("van gogh", "artist", anchor="art"),))
    edit = MaceCfr(domain="none").edit(exact_pipe, task)
    assert edit.info["lam"] == 100 and edit.info["preserve"] is None and len(edit.info["templates"]) == 30
    pairs = literal_pairs(exact_pipe, ARTIST, [("van gogh", "art")])
    assert_equal(exact_pipe, edit, pairs=pairs, preserved=[], lam=100.0)


@pytest.mark.parametrize("squared", [False, True])
def test_with_both_caches_it_equals_its_loop(squared, full_pipe, tmp_path):
    captions = ["a dog in the park", "two boats"]
    (tmp_path / "captions.csv").write_text("caption\n" + "\n".join(captions))
    mace_cfr = MaceCfr(
        lam=0,
        templates=FEW,
        preserve=str(tmp_path / "captions.csv"),
        domain="task",
        domain_weight=4.0,
        preserve_scale=0.3,
        squared_scale=squared,
        cache_dir=str(tmp_path / "cache"),
    )
    edit = mace_cfr.edit(full_pipe, TASK)
    preserved = [(pick(full_pipe, caption, "all"), 1.0) for caption in captions]
    preserved += [(pick(full_pipe, template.replace("{}", "tench"), "all"), 4.0) for template in FEW]
    pairs = literal_pairs(full_pipe, FEW)
    assert_equal(full_pipe, edit, pairs=pairs, preserved=preserved, lam=0.0, preserve_scale=0.3, squared=squared)
    assert edit.info["preserve"]["prompts"] == 2 and edit.info["preserve"]["domain"] == ["tench"]
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_domain_of_names_from_a_file(full_pipe, tmp_path):
    (tmp_path / "names.txt").write_text("tench\n")
    options = {"templates": FEW, "preserve_scale": 0.3, "cache_dir": str(tmp_path)}
    by_file = MaceCfr(domain=str(tmp_path / "names.txt"), **options).edit(full_pipe, TASK)
    by_task = MaceCfr(domain="task", **options).edit(full_pipe, TASK)
    assert next(iter(by_file.changes.values())).token.equal(next(iter(by_task.changes.values())).token)


@pytest.mark.parametrize(("count", "weight"), [(1, 8e3), (4, 8e3), (5, 5e4), (10, 8e4), (12, 8e4)])
def test_the_domains_weight_grows_with_the_number_of_celebrities(count, weight, full_pipe, tmp_path):
    people = tuple(Concept(f"person {'abcdefghijklm'[i]}", "celebrity", anchor="a person") for i in range(count))
    edit = MaceCfr(domain="task", templates=["{}"], cache_dir=str(tmp_path))
    assert edit.edit(full_pipe, ErasureTask(people, ("cleo",))).info["preserve"]["domain_weight"] == weight


def test_an_empty_anchor_leaves_the_sentence_around_it(exact_pipe):
    task = ErasureTask((Concept("church", "object"),))
    edit = MaceCfr(domain="none", lam=1.0, templates=["a {} here"]).edit(exact_pipe, task)
    assert_equal(
        exact_pipe, edit, pairs=literal_pairs(exact_pipe, ["a {} here"], [("church", "")]), preserved=[], lam=1.0
    )


def test_batches_change_nothing_and_each_text_is_encoded_once(exact_pipe, monkeypatch):
    whole = MaceCfr(domain="none", templates=FEW).edit(exact_pipe, TASK)
    seen = []
    encode = Texts._encode
    monkeypatch.setattr(mace, "BATCH", 1)
    monkeypatch.setattr(
        Texts,
        "_encode",
        lambda self, texts, rule: (seen.extend(t for t in texts if t not in self._known), encode(self, texts, rule)),
    )
    parts = MaceCfr(domain="none", templates=FEW).edit(exact_pipe, TASK)
    one, other = (next(iter(edit.changes.values())).rows(torch.eye(24)) for edit in (whole, parts))
    assert torch.linalg.norm(one - other) < 1e-10 * torch.linalg.norm(one)
    prompts = [template.replace("{}", text) for template in FEW for text in ("church", "small chapel", "sky", "a tree")]
    assert set(prompts) <= set(seen) and len(seen) == len(set(seen))


def test_all_families_of_unets(tiny_random_sd2_pipe, tiny_random_sdxl_pipe):
    for pipe in (tiny_random_sd2_pipe, tiny_random_sdxl_pipe):
        edit = MaceCfr(domain="none", templates=FEW).edit(pipe, TASK)
        assert set(edit.changes) == set(key_value_weights(pipe)) and edit.info["moved"]["beside"] > 0
    assert {"sd3", "flux"} == set(MaceCfr.unsupported)


def test_notes_say_how_far_tokens_move(exact_pipe):
    shares = MaceCfr(domain="none", lam=1e-3, templates=FEW).edit(exact_pipe, TASK).info["moved"]
    assert set(shares) == {"beside", "concept", "retain"} and all(share > 0 for share in shares.values())


def test_a_faint_edit_is_called_so(exact_pipe):
    (warning,) = MaceCfr(domain="none", lam=1e9, templates=FEW).edit(exact_pipe, TASK).info["warnings"]
    assert "nearly empty" in warning


def test_our_sentences():
    for sentences in (OBJECT, ARTIST):
        assert len(set(sentences)) == 30 and all(text.count("{}") == 1 for text in sentences)
        assert all(text == " ".join(text.split()) for text in sentences)


# Where a concept stands ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        ("a {}", "church", (2, 8)),
        ("{}", "small chapel", (1, 12)),
        ("a {} here", "", (2, 2)),
        ("a photo, {}'s", "art", (8, 11)),
    ],
)
def test_span(template, text, expected, exact_pipe):
    part = text_inputs(exact_pipe)[0]
    assert span(part, template, text) == expected
    ids = exact_pipe.tokenizer(template.replace("{}", text)).input_ids
    assert exact_pipe.tokenizer.decode(ids[slice(*expected)]).strip() == text


@pytest.mark.parametrize(("template", "message"), [("pre{}", "spaces around"), ("{} " + 70 * "a", "shorten")])
def test_span_refuses_what_it_cannot_tell_apart(template, message, exact_pipe):
    with pytest.raises(UserError, match=message):
        MaceCfr(domain="none", templates=[template]).edit(exact_pipe, TASK)


# Options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": 0, "domain": "none"}, "lam=0 needs a preserve cache.*method.preserve=FILE"),
        ({"lam": -1.0}, "lam is -1.0"),
        ({"lam": float("nan")}, "lam is nan"),
        ({"preserve_scale": 0.0}, "preserve_scale"),
        ({"domain_weight": -2.0}, "domain_weight"),
        ({"templates": ["a photo"]}, "mark once"),
        ({"templates": ["{} and {}"]}, "mark once"),
        ({"templates": []}, "templates is empty"),
        ({"preserve": "nowhere.csv"}, "method.preserve=nowhere.csv: no such file"),
        ({"domain": "tasks"}, "method.domain=tasks: no such file"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        MaceCfr(**options)


def test_lam_zero_with_nothing_to_retain_is_refused(exact_pipe):
    with pytest.raises(UserError, match="lam=0 needs a preserve cache and the task's retain list is empty"):
        MaceCfr(lam=0).edit(exact_pipe, ErasureTask((CHURCH,)))


def test_by_default_the_tasks_retain_list_is_kept(exact_pipe):
    edit = MaceCfr(templates=FEW).edit(exact_pipe, TASK)
    preserved = [(pick(exact_pipe, template.replace("{}", "tench"), "all"), 8e3) for template in FEW]
    pairs = literal_pairs(exact_pipe, FEW)
    assert_equal(exact_pipe, edit, pairs=pairs, preserved=preserved, lam=100.0, preserve_scale=1e-4)
    without = MaceCfr(templates=FEW, domain="none").edit(exact_pipe, TASK)
    assert edit.info["moved"]["retain"] < without.info["moved"]["retain"]


def test_a_concept_that_is_its_own_anchor_is_refused(exact_pipe):
    with pytest.raises(UserError, match="anchor"):
        MaceCfr(anchor="church").edit(exact_pipe, TASK)


def test_the_key_knows_what_is_in_a_file_and_not_where_caches_are(tmp_path):
    file = tmp_path / "captions.txt"

    def key(**options):
        file.write_text(options.pop("text", "a dog"))
        return MaceCfr(preserve=str(file), **options).key("model", TASK)

    assert key() == key(cache_dir="elsewhere")
    assert key() != key(text="a cat")
    assert key() != key(squared_scale=True)


# The algebra, for any rows -------------------------------------------------------------------------------------------

seeds, sizes = st.integers(0, 10_000), st.integers(2, 9)


@given(seed=seeds, d=sizes, n=sizes, lam=st.floats(0.01, 10), scale=st.floats(0.01, 10))
@settings(max_examples=30, deadline=None)
def test_sums_give_what_rows_give(seed, d, n, lam, scale):
    old, new, kept = draw(seed, n, d), draw(seed + 1, n, d), draw(seed + 2, d, d)
    by_rows = pull(old, new, lam, keep_gram=kept.T @ kept, keep_scale=scale)
    by_sums = pull_sums((new - old).T @ old, old.T @ old, lam, kept.T @ kept, scale)
    probe = torch.eye(d, dtype=torch.float64)
    assert torch.allclose(by_rows.rows(probe), by_sums.rows(probe), rtol=1e-8, atol=1e-9)


@given(seed=seeds, d=st.integers(4, 9))
@settings(max_examples=30, deadline=None)
def test_more_weight_on_the_cache_leaves_its_rows_in_place(seed, d):
    old, new, kept = draw(seed, 2, d), draw(seed + 1, 2, d), draw(seed + 2, 2, d)
    shares = [
        moved(pull_sums((new - old).T @ old, old.T @ old, 0.1, gram([kept], d), scale), {"kept": kept})["kept"]
        for scale in (1e-3, 1e2, 1e7)  # far above that float64 cannot solve the equations, and says so
    ]
    assert shares[0] > shares[1] > shares[2] and shares[2] < 1e-4


# Stage 3 -------------------------------------------------------------------------------------------------------------


def some_loras(seed, weights, concepts):
    """One LoRA a concept: ranks 1, 2, ...; the second does not touch the first weight."""
    loras = []
    for number in range(concepts):
        rank = number + 1
        names = list(weights)[1:] if number == 1 else list(weights)
        loras.append(
            {
                name: (
                    draw(seed + 7 * number + i, len(weights[name]), rank),
                    draw(seed + 90 + number + i, rank, weights[name].shape[1]),
                )
                for i, name in enumerate(names)
            }
        )
    return loras


@pytest.mark.parametrize("from_originals", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_fusion_equals_its_loop(from_originals, cached, exact_pipe):
    part = text_inputs(exact_pipe)[0]
    originals = {name: weight.detach().double() for name, weight in part.weights.items()}
    weights = {name: weight + 0.1 * draw(i, *weight.shape) for i, (name, weight) in enumerate(originals.items())}
    loras = some_loras(5, weights, 3)
    rows = [template_rows(part, text, FEW) for text in ("church", "tench", "gas pump")]
    kept = pick(exact_pipe, "a dog in the park", "all")
    made = fuse(
        weights,
        loras,
        rows,
        lam=2.0,
        keep_gram=gram([kept], 24) if cached else None,
        keep_scale=0.7,
        kept=originals if from_originals else None,
    )
    assert set(made) == set(weights)
    for name, weight in weights.items():
        zero = (torch.zeros(len(weight), 1, dtype=torch.float64), torch.zeros(1, 24, dtype=torch.float64))
        expected = mace_fuse(
            weight,
            [lora.get(name, zero) for lora in loras],
            rows,
            [(kept, 1.0)] if cached else [],
            2.0,
            0.7,
            originals[name] if from_originals else None,
        )
        change = expected - weight
        assert torch.linalg.norm(made[name].of(weight) - change) < 1e-8 * torch.linalg.norm(change), name
        if not (from_originals and cached):
            assert made[name].rank == sum(lora[name][0].shape[1] for lora in loras if name in lora), "it stays factored"


def test_fusion_solves_once(monkeypatch):
    calls = []
    solve = fusion.solve_spd
    monkeypatch.setattr(fusion, "solve_spd", lambda *args: calls.append(args) or solve(*args))
    weights = {f"w{i}": draw(i, 6, 8) for i in range(5)}
    fuse(weights, some_loras(1, weights, 4), [draw(i, 3, 8) for i in range(4)], lam=1.0)
    assert len(calls) == 1


@given(seed=seeds, d=sizes, concepts=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_loras_of_nothing_change_nothing(seed, d, concepts):
    weights = {"a": draw(seed, 4, d), "b": draw(seed + 1, 6, d)}
    loras = [{name: (torch.zeros(len(w), 1).double(), draw(seed, 1, d)) for name, w in weights.items()}] * concepts
    made = fuse(weights, loras, [draw(seed + i, 3, d) for i in range(concepts)], lam=0.5)
    assert all(not change.of(weights[name]).any() for name, change in made.items())
    assert fuse(weights, [{}], [draw(seed, 3, d)], lam=0.5) == {}


@given(seed=seeds, d=st.integers(4, 10), n=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_one_lora_is_exact_on_its_own_rows_as_lam_goes_to_zero(seed, d, n):
    weights = {"a": draw(seed, 5, d)}
    lora = {"a": (draw(seed + 1, 5, 2), draw(seed + 2, 2, d))}
    rows = torch.linalg.qr(draw(seed + 3, d, n)).Q.T * 3
    (change,) = fuse(weights, [lora], [rows], lam=1e-9).values()
    wanted = rows @ (lora["a"][0] @ lora["a"][1]).T
    assert torch.linalg.norm(rows @ change.of(weights["a"]).T - wanted) <= 1e-8 * torch.linalg.norm(wanted)


@given(seed=seeds, d=st.integers(4, 10))
@settings(max_examples=30, deadline=None)
def test_loras_of_concepts_apart_do_not_disturb_each_other(seed, d):
    """With orthogonal rows, one change does on each concept's rows what its own LoRA does."""
    weights = {"a": draw(seed, 5, d)}
    loras = [{"a": (draw(seed + i, 5, 1), draw(seed + 9 + i, 1, d))} for i in range(2)]
    rows = list((torch.linalg.qr(draw(seed + 3, d, 4)).Q.T * 2).split(2))
    change = fuse(weights, loras, rows, lam=1e-9)["a"].of(weights["a"])
    for lora, own in zip(loras, rows, strict=True):
        wanted = own @ (lora["a"][0] @ lora["a"][1]).T
        assert torch.linalg.norm(own @ change.T - wanted) <= 1e-7 * torch.linalg.norm(wanted)


@given(seed=seeds, d=st.integers(4, 10))
@settings(max_examples=30, deadline=None)
def test_a_heavy_cache_leaves_its_rows_in_place(seed, d):
    weights, kept = {"a": draw(seed, 5, d)}, draw(seed + 5, 2, d)
    lora = {"a": (draw(seed + 1, 5, 2), draw(seed + 2, 2, d))}
    sizes = [
        torch.linalg.norm(kept @ fuse(weights, [lora], [draw(seed + 3, 2, d)], 0.1, gram([kept], d), s)["a"].of(None).T)
        for s in (1e-3, 1e9)
    ]
    assert sizes[1] < 1e-6 * max(sizes[0], 1e-6)


def test_fusion_refuses_what_does_not_fit():
    weights = {"a": draw(0, 4, 6)}
    good = {"a": (draw(1, 4, 1), draw(2, 1, 6))}
    with pytest.raises(UserError, match="2 LoRAs and rows of 1"):
        fuse(weights, [good, good], [draw(3, 2, 6)], 1.0)
    with pytest.raises(UserError, match="not among the weights"):
        fuse(weights, [{"b": good["a"]}], [draw(3, 2, 6)], 1.0)
    with pytest.raises(UserError, match="another model"):
        fuse(weights, [{"a": (draw(1, 4, 1), draw(2, 1, 5))}], [draw(3, 2, 6)], 1.0)
    with pytest.raises(UserError, match="raise lam"):
        fuse(weights, [good], [draw(3, 2, 6)], 0.0)


# LoRA files ----------------------------------------------------------------------------------------------------------

MODULE = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.mark.parametrize(
    ("down", "up"),
    [("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"), ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight")]
    + [("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight")],
)
@pytest.mark.parametrize(("alpha", "scale"), [(None, 1.0), ("tensor", 2.0), ("notes", 4.0), ("pattern", 0.5)])
def test_lora_files(down, up, alpha, scale, tmp_path):
    left, right = draw(1, 6, 2).float(), draw(2, 2, 8).float()
    tensors = {down.format(MODULE): right, up.format(MODULE): left}
    notes = {}
    if alpha == "tensor":
        tensors[down.format(MODULE).split(".lora")[0] + ".alpha"] = torch.tensor(4.0)
    elif alpha:
        notes = {"unet.lora_alpha": 8, "unet.alpha_pattern": {MODULE: 1} if alpha == "pattern" else {}}
    save_file(tensors, tmp_path / "l.safetensors", metadata={"lora_adapter_metadata": json.dumps(notes)})
    ((name, (got_left, got_right)),) = read_lora(tmp_path / "l.safetensors").items()
    assert name == f"unet.{MODULE}.weight"
    assert torch.equal(got_left, scale * left.double()) and torch.equal(got_right, right.double())


def test_a_lora_file_of_diffusers(small_pipe, tmp_path):
    """What was read and added to the weights is what the library itself fuses into them."""
    peft = pytest.importorskip("peft")
    pipe = small_pipe()
    pipe.unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=6, target_modules=["attn2.to_k", "attn2.to_v"]))
    torch.manual_seed(1)
    for name, weight in pipe.unet.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight)
    from diffusers.training_utils import _collate_lora_metadata
    from peft.utils import get_peft_model_state_dict

    pipe.save_lora_weights(
        tmp_path, unet_lora_layers=get_peft_model_state_dict(pipe.unet), **_collate_lora_metadata({"unet": pipe.unet})
    )
    lora = read_lora(tmp_path / "pytorch_lora_weights.safetensors")
    plain = small_pipe()
    weights = {name: weight.detach().double().clone() for name, weight in key_value_weights(plain).items()}
    assert set(lora) == set(weights)
    plain.load_lora_weights(tmp_path)
    plain.fuse_lora()
    plain.unload_lora_weights()
    for name, fused in key_value_weights(plain).items():
        left, right = lora[name]
        assert torch.allclose(weights[name] + left @ right, fused.detach().double(), atol=1e-5), name


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"unet.{MODULE}.lora_A.weight": 1}, "only one of its two factors"),
        ({"lora_unet_mid_block_to_k.lora_down.weight": 1}, "diffusers or peft"),
        ({"text_encoder.text_model.q_proj.lora_A.weight": 1}, "diffusers or peft"),
        ({f"unet.{MODULE}.lora_magnitude_vector": 1}, "diffusers or peft"),
        ({f"unet.{MODULE}.alpha": 1}, "no tensor of a LoRA"),
    ],
)
def test_other_files_are_refused(tensors, message, tmp_path):
    save_file({name: torch.ones(1, 1) for name in tensors}, tmp_path / "l.safetensors")
    with pytest.raises(UserError, match=message):
        read_lora(tmp_path / "l.safetensors")


def test_missing_and_broken_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such LoRA file"):
        read_lora(tmp_path / "none.safetensors")
    (tmp_path / "l.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(UserError, match="not a LoRA"):
        read_lora(tmp_path / "l.safetensors")
