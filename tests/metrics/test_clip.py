"""CLIP score and zero-shot accuracy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from metric_helpers import pictures, plan_rows, random_clip, scored

from erasebench.concepts import with_article
from erasebench.errors import UserError
from erasebench.metrics import _clip, _embedded
from erasebench.metrics.clip_error import ClipError
from erasebench.metrics.clip_score import VARIANTS, ClipScore, cosines, file_name_text
from erasebench.metrics.clip_zero_shot import ClipZeroShot

LABELS = ["church", "tench", "church", "gas pump"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("clip")
    random_clip(place)
    return place


@pytest.fixture
def embedded(folder, monkeypatch):
    """The embedded CLIP is a small one of random weights."""
    monkeypatch.setattr(_embedded, "CLIP_FOLDER", folder)
    _clip.load_clip.cache_clear()
    yield folder
    _clip.load_clip.cache_clear()


def test_embedded_score_is_what_transformers_computes(embedded):
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    images, rows = pictures(4), plan_rows(LABELS)
    model = CLIPModel.from_pretrained(embedded).eval()
    pixels = CLIPImageProcessor.from_pretrained(embedded)(images, return_tensors="pt").pixel_values
    tokens = CLIPTokenizer.from_pretrained(embedded)(rows["prompt"].tolist(), padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(pixel_values=pixels, **tokens)
    expected = (logits.image_embeds * logits.text_embeds).sum(1)
    metric = ClipScore(variant="embedded", device="cpu", batch_size=3)
    np.testing.assert_allclose(metric.score(images, rows)["cosine"], expected, atol=2e-6)


class Tensors:
    """A ``CLIPModel`` whose features are plain tensors, as torchmetrics 1.9 wants them (transformers 5 wraps them)."""

    def __init__(self, model):
        self.model, self.config = model, model.config

    def to(self, device):
        return self

    def _embedding(self, found):
        return found if isinstance(found, torch.Tensor) else found.pooler_output

    def get_image_features(self, *args, **kwargs):
        return self._embedding(self.model.get_image_features(*args, **kwargs))

    def get_text_features(self, *args, **kwargs):
        return self._embedding(self.model.get_text_features(*args, **kwargs))


def test_score_is_that_of_torchmetrics(embedded):
    from torchmetrics.functional.multimodal.clip_score import clip_score
    from transformers import CLIPModel, CLIPProcessor

    images, rows = pictures(4), plan_rows(LABELS)
    pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]
    parts = Tensors(CLIPModel.from_pretrained(embedded).eval()), CLIPProcessor.from_pretrained(embedded)
    with torch.inference_mode():
        expected = clip_score(pixels, rows["prompt"].tolist(), model_name_or_path=lambda: parts)
    metric = ClipScore(variant="torchmetrics", device="cpu")
    clip = _clip.load_clip("embedded", None, "cpu", 8)
    rows["cosine"] = cosines(clip, images, rows["prompt"].tolist())
    assert metric.reduce(rows).value == pytest.approx(float(expected), abs=1e-3)


def test_open_clip_towers_are_normalised_and_batched():
    import open_clip

    torch.manual_seed(0)
    shape = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=16, vision_cfg=shape, text_cfg=text, quick_gelu=True).eval()
    transform = open_clip.image_transform(32, is_train=False)
    clip = _clip.from_open_clip(model, transform, open_clip.get_tokenizer("ViT-B-32"), torch.device("cpu"), 2)
    images, texts = pictures(3), ["a church", "a tench", "a church"]
    with torch.inference_mode():
        logits, _ = model.get_logits(torch.stack([transform(image) for image in images]), open_clip.tokenize(texts))
    np.testing.assert_allclose(clip.scale * cosines(clip, images, texts), logits.diagonal(), rtol=1e-4)


def test_openai_weights_get_the_activation_they_were_trained_with():
    for name, source in _clip.PUBLISHED.items():
        if "openai" in source.repository:
            assert source.architecture == f"{name}-quickgelu"


def values(variant: str, cosine: list[float], labels: list[str] | None = None) -> list[float]:
    rows = plan_rows(labels or ["church"] * len(cosine))
    return ClipScore(variant=variant).values(rows.assign(cosine=cosine)).tolist()


def test_formulas_of_the_variants():
    assert values("uce", [0.31, -0.1]) == pytest.approx([31, -10])
    assert values("speed", [0.26]) == pytest.approx([26])
    assert values("spm", [0.3, -0.1]) == pytest.approx([0.75, 0.0])
    assert values("eraseeval", [0.3]) == pytest.approx([0.3])
    assert values("spm", [0.3, 0.3], ["church", ""]) == pytest.approx([0.75, math.nan], nan_ok=True)
    rows = plan_rows(["church"] * 3).assign(cosine=[-0.3, 0.1, -0.1])
    assert ClipScore(variant="torchmetrics").reduce(rows).value == 0.0
    assert ClipScore(variant="uce").reduce(rows).value == pytest.approx(-10)


def test_texts_of_the_variants():
    rows = plan_rows(["Van Gogh"], prompts=["A night, by Van Gogh (1889): stars_"])
    read = {name: ClipScore(variant=name)._texts(rows)[0] for name in VARIANTS}
    assert read["uce"] == read["embedded"] == "A night, by Van Gogh (1889): stars_"
    assert read["spm"] == "Van Gogh"
    assert read["speed"] == file_name_text(rows["prompt"][0]) == "A night by Van Gogh 1889 stars"
    assert ClipScore(variant="spm").inputs == ("label",)


def test_speed_reads_captions_whole_and_prompts_of_concepts_by_their_file_names():
    """Its script takes the text of COCO from the list, and any other from the name of the image's file."""
    text = "A cat, sitting (alone)."
    rows = pd.concat([plan_rows(["", "cat"], role="general", prompts=[text, text])])
    metric = ClipScore(variant="speed")
    assert metric._texts(rows) == [text, "A cat sitting alone"]
    assert set(metric.inputs) == {"prompt", "label"} and metric.rule_version == "2"
    assert ClipScore(variant="uce").rule_version == "1"


def test_zero_shot_asks_with_the_article_of_a_name_unless_a_template_is_given():
    ours = ClipZeroShot(
        candidates={"object": ["English springer", "church"], "celebrity": ["Frida Kahlo", "Cleopatra"]}
    )
    assert ours.text("object", "English springer") == "a photo of an English springer"
    assert ours.text("object", "church") == "a photo of a church"
    assert ours.text("celebrity", "Frida Kahlo") == "a photo of Frida Kahlo"
    mace = ClipZeroShot(candidates={"object": ["airplane", "ship"]}, templates={"object": "a photo of the {}"})
    assert mace.text("object", "airplane") == "a photo of the airplane"
    assert (ours.rule_version, mace.rule_version) == ("2", "1")


def test_unknown_choices_are_refused_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'speed'"):
        ClipScore(variant="sped")
    with pytest.raises(UserError, match="Did you mean 'ViT-L-14'"):
        ClipZeroShot(backbone="ViT-L14")
    with pytest.raises(UserError, match="Did you mean 'object'"):
        ClipZeroShot(candidates={"objects": ["a", "b"]})
    with pytest.raises(UserError, match="at least two names"):
        ClipZeroShot(candidates={"object": ["a"]})
    with pytest.raises(UserError, match="has no {} for the name"):
        ClipZeroShot(templates={"object": "a photo"})
    with pytest.raises(UserError, match="not one of top1, probability"):
        ClipZeroShot(report="top5")


def test_zero_shot_is_a_softmax_over_the_candidates(embedded):
    names = ["church", "tench", "gas pump"]
    top1 = ClipZeroShot(candidates={"object": names}, device="cpu")
    images, rows = pictures(4), plan_rows([*LABELS[:3], "fountain"])
    rows.loc[2, "kind"] = "artist"  # no candidates given
    found = scored(top1, images, rows)
    clip = _clip.load_clip("embedded", None, "cpu", 64)
    chances = (
        clip.scale * clip.image(images) @ clip.text([f"a photo of {with_article(name)}" for name in names]).T
    ).softmax(1)
    best = [names[i] for i in chances.argmax(1).tolist()]
    assert found["answer"].tolist() == [*best[:2], "", best[3]]
    assert found["label_p"].tolist() == pytest.approx(
        [float(chances[0, 0]), float(chances[1, 1]), math.nan, math.nan], abs=1e-5, nan_ok=True
    )
    right = [float(found["answer"][0] == "church"), float(found["answer"][1] == "tench")]
    assert top1.values(found).tolist() == pytest.approx([*right, math.nan, math.nan], nan_ok=True)
    share = ClipZeroShot(candidates={"object": names}, report="probability")
    assert share.records_id == top1.records_id and share.id != top1.id
    assert share.reduce(found).value == pytest.approx(found["label_p"].mean())


def test_candidates_and_templates_are_in_the_version():
    first = ClipZeroShot(candidates={"object": ["a", "b"]})
    assert first.version != ClipZeroShot(candidates={"object": ["a", "c"]}).version
    assert first.version != ClipZeroShot(candidates={"object": ["a", "b"]}, templates={"object": "{}"}).version
    assert first.version == ClipZeroShot(candidates={"object": ["a", "b"]}).version


def test_a_prompt_of_any_length_is_scored(embedded):
    rows = pd.DataFrame({"prompt": ["church " * 200, ""], "label": ["church", ""], "kind": "object"})
    assert np.isfinite(ClipScore(variant="embedded", device="cpu").score(pictures(2, size=96), rows)["cosine"]).all()


def clip_accuracy(images, ablated, anchor, clip) -> list[bool]:
    """SPM's ``clip_eval_by_image``, transcribed: ``clip_score`` of both texts, 2.5 cos cut off at 0, then ``<``."""

    def clip_score(texts):
        features, wanted = clip.image(images).double(), clip.text(texts).double()
        return (2.5 * features * wanted).sum(dim=1).clamp(min=0).numpy()

    return list(clip_score(anchor) < clip_score(ablated))


def test_the_error_rate_is_one_less_the_accuracy_of_spm(embedded):
    images, rows = pictures(12), plan_rows(["church", "tench", "gas pump"] * 4)
    metric = ClipError(backbone="embedded", device="cpu")
    found = scored(metric, images, rows)
    clip = _clip.load_clip("embedded", None, "cpu", 64)
    right = clip_accuracy(images, rows["label"].tolist(), [""] * 12, clip)
    assert 0 < sum(right) < 12, "the pictures tell"
    assert metric.values(found).tolist() == [float(not one) for one in right]
    assert metric.reduce(found).value == pytest.approx(1 - np.mean(right))


def test_an_error_is_a_tie_or_worse_and_a_prompt_without_a_concept_has_none():
    cosine = {"cosine": [0.2, 0.1, 0.1, -0.3, 0.2], "cosine_empty": [0.1, 0.1, 0.2, -0.5, 0.1]}
    rows = plan_rows(["church", "church", "church", "church", ""]).assign(**cosine)
    assert ClipError().values(rows).tolist() == pytest.approx([0, 1, 1, 1, math.nan], nan_ok=True)
    assert ClipError().name == "clip_error_spm" and ClipError(backbone="embedded").name == "clip_error_embedded"
