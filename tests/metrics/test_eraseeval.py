"""EraseEval's scores by a local model: the zero rule, the pairs, real small networks of transformers, and the embedded judge."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import shutil
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_helpers import pictures, plan_rows, scored
from rich.console import Console

from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.metrics import _viewer
from erasebench.metrics.eraseeval import EraseEval
from erasebench.metrics.preference import PickScore
from erasebench.metrics.seen import Seen
from erasebench.run import run
from erasebench.scores.stored import from_record, to_record

WORDS = [
    "yes",
    "no",
    "idk",
    "is",
    "church",
    "in",
    "this",
    "image",
    "?",
    "answer",
    "or",
    ".",
    "the",
    "style",
    "of",
    "a",
    "red",
    "door",
    "describe",
    "one",
    "sentence",
    "what",
    "and",
    "say",
]
CHAT = (
    "{% for message in messages %}USER: {% for part in message['content'] %}{% if part['type'] == 'image' %}<image> "
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %} ASSISTANT:"
)


def words_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["<pad>", "<s>", "</s>", "<unk>", "<image>", *WORDS]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return tokenizer


def random(model):
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def llava(folder):
    """A chat model: LLaVA in a few thousand numbers."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    torch.manual_seed(1)
    tokenizer = words_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    image = tokenizer.convert_tokens_to_ids("<image>")
    model = random(
        LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=image))
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}), tokenizer, patch_size=8,
        vision_feature_select_strategy="default", chat_template=CHAT, num_additional_image_tokens=1,
    )  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def paligemma(folder):
    """A model without a conversation: PaliGemma, which the release asks."""
    from transformers import (
        GemmaConfig,
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
        SiglipVisionConfig,
    )

    torch.manual_seed(2)
    images = SiglipImageProcessor(size={"height": 16, "width": 16})
    images.image_seq_length = 4
    processor = PaliGemmaProcessor(images, words_tokenizer())
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = GemmaConfig(
        vocab_size=len(processor.tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    config = PaliGemmaConfig(
        vision_config=vision, text_config=text, image_token_index=processor.image_token_id, projection_dim=16
    )
    model = random(PaliGemmaForConditionalGeneration(config))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def modernbert(folder):
    from transformers import ModernBertConfig, ModernBertModel

    torch.manual_seed(3)
    tokenizer = words_tokenizer()
    config = ModernBertConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
    )  # fmt: skip
    model = random(ModernBertModel(config))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


@cache
def folder_of(maker, root):
    folder = root / maker.__name__
    return folder, *maker(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("viewers")


@pytest.mark.parametrize("maker", [llava, paligemma])
def test_a_model_of_transformers_answers_with_its_likeliest_words(maker, root, monkeypatch) -> None:
    """What transformers alone says: the question behind the image, greedily, without the words of the question.

    Of PaliGemma one word: it reads what it says otherwise than what it is asked.
    """
    length = 5 if maker is llava else 1
    monkeypatch.setattr(_viewer, "LONGEST_ANSWER", length)
    folder, model, processor = folder_of(maker, root)
    assert _viewer.unavailable(str(folder), None, "metric.seen.viewer") is None
    viewer, image = _viewer.load_viewer(str(folder), None, "cpu"), pictures(1, 16)[0]
    text = "is church in this image ?"
    if maker is llava:
        inputs = processor(text=f"USER: <image> {text} ASSISTANT:", images=image, return_tensors="pt")
    else:
        inputs = processor(text=f"<image>{text}", images=image, return_tensors="pt")
    tokens = inputs["input_ids"]
    said = []
    with torch.inference_mode():
        for _ in range(length):  # a plain loop over the most likely next word
            more = {name: value for name, value in inputs.items() if name == "pixel_values"}
            if "token_type_ids" in inputs:
                more["token_type_ids"] = torch.zeros_like(tokens)
            word = int(model(input_ids=tokens, **more).logits[0, -1].argmax())
            if word == 2:
                break
            said.append(word)
            tokens = torch.cat([tokens, torch.tensor([[word]])], dim=1)
    assert viewer.answer(image, text) == processor.tokenizer.decode(said, skip_special_tokens=True).strip()


def test_captions_are_encoded_by_the_mean_of_their_tokens(root) -> None:
    folder, model, tokenizer = folder_of(modernbert, root)
    texts = ["a red door", "the church in a church"]
    found = _viewer.encode(texts, str(folder), None, "cpu")
    for text, row in zip(texts, found, strict=True):
        with torch.inference_mode():
            hidden = model(**{k: v for k, v in tokenizer(text, return_tensors="pt").items() if k != "token_type_ids"})[
                0
            ][0]
        mean = hidden.mean(dim=0)
        assert row == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("answer", "word"),
    [("Yes.", "yes"), ("NO", "no"), ("I know it is not", ""), ("First no, but then: yes", "yes"), ("", ""), ("idk", "idk")],
)  # fmt: skip
def test_a_verdict_is_a_whole_word(answer: str, word: str) -> None:
    assert _viewer.verdict(answer) == word


def literal(theirs, ours, answers, captions, label, named: bool) -> float:
    """The loops of eval.py: every image of the unedited model with every image of the edit."""
    scores = []
    for u, (e, answer, caption) in itertools.product(theirs, list(zip(ours, answers, captions, strict=True))):
        gone = answer == "yes" and (not named or label in caption)
        scores.append(0.0 if gone else float(np.dot(u, e) / np.linalg.norm(u) / np.linalg.norm(e)))
    return sum(scores) / len(scores)


def of_prompts(rng, count: int, images: int, answers, captions):
    """Records of a made-up edit and of the unedited model."""
    rows = plan_rows(["church"] * (count * images), prompts=[f"p{i}" for i in range(count) for _ in range(images)])
    vectors = rng.normal(size=(2, len(rows), 6))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    edited = rows.assign(answer=answers, caption=captions, vector=list(vectors[0]))
    return edited, rows.assign(answer="yes", caption="a church", vector=list(vectors[1]))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from(["named", "implicit"]))
@settings(max_examples=40, deadline=None)
def test_the_number_of_a_set_is_that_of_the_released_loops(prompts: int, images: int, seed: int, report: str) -> None:
    rng = np.random.default_rng(seed)
    answers = rng.choice(["yes", "no", "idk"], prompts * images).tolist()
    captions = rng.choice(["a Church", "a door"], prompts * images).tolist()
    edited, unedited = of_prompts(rng, prompts, images, answers, captions)
    estimate = EraseEval(report=report).reduce(edited, unedited)
    each = []
    for prompt in edited.prompt.unique():
        mine, theirs = edited[edited.prompt == prompt], unedited[unedited.prompt == prompt]
        captions = [caption.casefold() for caption in mine.caption]
        each.append(literal(theirs.vector, mine.vector, mine.answer, captions, "church", report == "named"))
    assert estimate.value == pytest.approx(sum(each) / len(each), abs=1e-12) and estimate.n == prompts


def test_what_was_not_said_is_no_number() -> None:
    edited, unedited = of_prompts(np.random.default_rng(0), 2, 2, ["", "no", "", ""], ["a door"] * 4)
    estimate = EraseEval(report="implicit").reduce(edited, unedited)
    cosines = [float(unedited.vector[i] @ edited.vector[1]) for i in (0, 1)]
    assert estimate.n == 1 and estimate.value == pytest.approx(sum(cosines) / 2)
    assert EraseEval(report="implicit").reduce(edited.assign(answer=""), unedited).how == "not run"
    assert EraseEval(report="implicit").reduce(edited, None).how == "not run"


def test_seen_is_a_rate_of_those_that_were_answered_for(root) -> None:
    folder, *_ = folder_of(llava, root)
    metric = Seen(viewer=str(folder), device="cpu")
    rows = plan_rows(["church"] * 4).assign(answer=["yes", "no", "", "idk"])
    assert metric.values(rows).tolist()[:2] == [1.0, 0.0] and math.isnan(metric.values(rows)[2])
    assert metric.values(rows)[3] == 0 and metric.reduce(rows).n == 3
    viewer = _viewer.load_viewer(str(folder), None, "cpu")
    images, asked = pictures(2, 16), _viewer.question("church", "object")
    answers = [_viewer.verdict(viewer.answer(image, asked)) for image in images]
    assert scored(metric, images, plan_rows(["church"] * 2)).answer.tolist() == answers
    assert set(metric.shown(rows)) == {""}, "it says whether the concept is there, and never what came instead"


def test_a_stored_metric_is_read_where_its_folder_is_not_and_does_not_say_where_it_was(root, tmp_path) -> None:
    folder, *_ = folder_of(llava, root)
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    for metric in (
        Seen(viewer=str(moved), device="cpu"),
        EraseEval(report="named", viewer=str(moved), encoder=str(moved)),
        PickScore(model=str(moved), processor=str(moved)),
    ):
        record = to_record(metric)
        assert str(tmp_path) not in json.dumps(record)
        before = metric.version
        shutil.move(moved, tmp_path / "elsewhere")
        assert from_record(record, "run one: metric").id == f"{metric.name}@{before}"
        assert "is not on this machine" in type(metric)(**metric_settings(metric)).unavailable()
        shutil.move(tmp_path / "elsewhere", moved)
    (moved / "chat_template.jinja").write_text("another turn")
    assert Seen(viewer=str(moved)).version != Seen(viewer=str(folder)).version, (
        "what a model is asked is in its version"
    )


def metric_settings(metric) -> dict:
    return {entry.name: getattr(metric, entry.name) for entry in dataclasses.fields(metric)}


def test_what_is_not_here_names_the_command_that_gets_it(tmp_path, root) -> None:
    absent = Seen(viewer="nobody/nothing").unavailable()
    assert "run: `erasebench prefetch` metric=[seen] metric.seen.viewer=nobody/nothing" in absent
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internvl_chat", "auto_map": {}}))
    assert "built by code of its own repository, which is never run" in Seen(viewer=str(tmp_path)).unavailable()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert "does not answer questions about images" in Seen(viewer=str(tmp_path)).unavailable()
    (tmp_path / "config.json").write_text("{")
    assert "cannot be read" in Seen(viewer=str(tmp_path)).unavailable()
    assert "set metric.seen.viewer=FOLDER" in Seen(viewer="embedded").unavailable()
    folder, *_ = folder_of(llava, root)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert "model.safetensors, the tokenizer's files not in" in Seen(viewer=str(tmp_path)).unavailable()
    with pytest.raises(UserError, match="eraseeval.report: 'both' is not one of named, implicit"):
        EraseEval(report="both")


def test_the_embedded_model_is_measured_by_its_own_judge(tmp_path) -> None:
    """Weapons by name and by descriptions without it: an edit that changes nothing is 0 wherever the judge sees them."""
    overrides = [
        "task=unsafe", "method=[noop,uce]", "prompts=eraseeval", "protocol.seeds=[0,1]",
        "protocol.steps=10", "task.erase=[knife,pistol,bomb]", "task.keep.object=[tench]",
        "metric=[judge,eraseeval_named_embedded,eraseeval_implicit_embedded]", f"store.dir={tmp_path}", "device=cpu",
    ]  # fmt: skip
    done = run(compose([*overrides, "prompts.limit=1"]), Console(file=io.StringIO(), width=200))
    assert not done.problems
    table = done.measured[done.measured.task == "all"].set_index(["eraser", "role", "metric"]).value
    for role, name in (("erase", "named"), ("paraphrase", "implicit")):
        (metric,) = {m for _, r, m in table.index if m.startswith(f"eraseeval_{name}") and r == role}
        (judge,) = {m for _, r, m in table.index if m.startswith("judge") and r == role}
        assert table["none", role, judge] == 1, "the judge sees all of them in the unedited model's images"
        assert table["none", role, metric] == table["noop", role, metric] == 0
        assert table["uce", role, metric] != 0 and abs(table["uce", role, metric]) <= 1
