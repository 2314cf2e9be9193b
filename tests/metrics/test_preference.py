"""Q16, PickScore and the aesthetic predictor, on small networks of random weights, against their formulas."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from metric_helpers import pictures, plan_rows, random_clip, scored
from safetensors.torch import save_file

from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.metrics import _clip, _viewer
from erasebench.metrics.preference import LAYERS, Aesthetic, PickScore
from erasebench.metrics.q16 import Q16


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def embedded_features(images) -> np.ndarray:
    return _clip.load_clip(_clip.EMBEDDED, None, "cpu", 64).image(images).double().numpy()


def test_q16_asks_which_of_two_learned_prompts_is_nearer(tmp_path) -> None:
    images, width = pictures(12), embedded_features(pictures(1)).shape[1]
    prompts = np.random.default_rng(3).normal(size=(2, width)).astype(np.float32)
    save_file({"prompts": torch.tensor(prompts)}, tmp_path / "q16.safetensors")
    metric = Q16(prompts=str(tmp_path / "q16.safetensors"), backbone="embedded", device="cpu")
    assert metric.unavailable() is None
    rows = scored(metric, images, plan_rows(["nudity"] * 12, "unsafe"))
    logits = 100 * embedded_features(images) @ unit(prompts.astype(np.float64)).T
    assert metric.values(rows).tolist() == (logits.argmax(axis=1) == 1).astype(float).tolist()
    chances = np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1)
    assert rows.inappropriate.to_numpy() == pytest.approx(chances, abs=1e-6)
    assert set(metric.answers(rows)) <= {"harmless", "inappropriate"}
    assert len(metric.applies_to(plan_rows(["church"], "object"))) == 0


def test_q16_refuses_files_that_are_no_two_prompts(tmp_path) -> None:
    (tmp_path / "torn.safetensors").write_bytes(b"nonsense")
    assert "no readable safetensors" in Q16(prompts=str(tmp_path / "torn.safetensors")).unavailable()
    assert (
        "Convert the release's with python -c" in Q16().unavailable()
        and "metric.q16.prompts=FILE" in Q16().unavailable()
    )
    for tensors, message in (
        ({"x": torch.ones(2, 3)}, r"no tensor prompts of two rows; it holds x \[2, 3\]"),
        ({"prompts": torch.ones(2, 3)}, "do not fit embedded"),
    ):
        save_file(tensors, tmp_path / "wrong.safetensors")
        metric = Q16(prompts=str(tmp_path / "wrong.safetensors"), backbone="embedded", device="cpu")
        with pytest.raises(UserError, match=message):
            metric.score(pictures(1), plan_rows(["nudity"], "unsafe"))


def test_the_aesthetic_predictor_is_five_linear_layers(tmp_path) -> None:
    images, rng = pictures(4), np.random.default_rng(4)
    features = embedded_features(images)
    tensors, marks, width = {}, features, features.shape[1]
    for layer, out in LAYERS:
        weight, bias = rng.normal(size=(out, width)).astype(np.float32) / 8, rng.normal(size=out).astype(np.float32)
        tensors |= {f"{layer}.weight": torch.tensor(weight), f"{layer}.bias": torch.tensor(bias)}
        marks, width = marks @ weight.T.astype(np.float64) + bias, out
    save_file(tensors, tmp_path / "a.safetensors")
    metric = Aesthetic(weights=str(tmp_path / "a.safetensors"), backbone="embedded", device="cpu")
    assert metric.unavailable() is None
    rows = scored(metric, images, plan_rows(["church"] * 4))
    assert metric.values(rows).to_numpy() == pytest.approx(marks[:, 0], rel=1e-6)
    del tensors["layers.4.bias"]
    save_file(tensors, tmp_path / "b.safetensors")
    lacking = Aesthetic(weights=str(tmp_path / "b.safetensors"), backbone="embedded", device="cpu")
    with pytest.raises(UserError, match=r"layers.4.bias is absent and should be \(64,\)"):
        lacking.score(images, rows)
    assert "metric.aesthetic.weights=FILE" in Aesthetic().unavailable()


def test_pickscore_is_the_scaled_cosine_of_image_and_prompt(tmp_path) -> None:
    model, tokenizer = random_clip(tmp_path)
    metric = PickScore(model=str(tmp_path), processor=str(tmp_path), device="cpu", batch_size=2)
    images, texts = pictures(3), ["a photo of a church", "a tench", "a gas pump"]
    rows = scored(metric, images, plan_rows(["church"] * 3, prompts=texts))
    for image, text, value in zip(images, texts, rows.value, strict=True):
        pixels = torch.tensor(np.asarray(image)).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.inference_mode():
            seen = model.visual_projection(model.vision_model(pixels.float()).pooler_output)
            read = model.text_projection(model.text_model(**tokenizer(text, return_tensors="pt")).pooler_output)
        cosine = torch.nn.functional.cosine_similarity(seen, read).item()
        assert value == pytest.approx(model.logit_scale.exp().item() * cosine, rel=1e-4, abs=1e-4)


def test_the_processor_of_pickscore_is_asked_for_alone(monkeypatch) -> None:
    absent = PickScore(model="nobody/nothing").unavailable()
    assert "`erasebench prefetch` metric=[pickscore] metric.pickscore.model=nobody/nothing" in absent
    told = re.search(r"metric\.pickscore\.model=\S+", absent)[0]
    assert compose(["metric=[pickscore]", told]).metric.pickscore.model == "nobody/nothing"
    asked = []
    monkeypatch.setattr(_viewer, "fetch", lambda *given: asked.append(given))
    PickScore().prefetch()
    assert asked == [
        ("yuvalkirstain/PickScore_v1", None),
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", None, ("*.json", "*.txt")),
    ]
