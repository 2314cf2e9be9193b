"""Accuracy by published classifiers, with small networks of random weights in their places."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from metric_helpers import pictures, plan_rows

from erasebench.errors import UserError
from erasebench.metrics import _common, classifier
from erasebench.metrics.classifier import IMAGENETTE, Classifier, class_numbers, plain
from erasebench.tables.measure import measure


def imagenet_names() -> list[str]:
    from torchvision.models import ResNet50_Weights

    return ResNet50_Weights.IMAGENET1K_V2.meta["categories"]


def answering(*ids: int) -> classifier._Network:
    """A network that ranks the given classes first, in order, for every image."""
    logits = torch.zeros(1000)
    for place, number in enumerate(ids):
        logits[number] = 10 - place
    return classifier._Network(lambda images: logits.repeat(len(images), 1), tuple(imagenet_names()))


def test_table_of_imagenette_is_that_of_torchvision():
    names = [plain(name) for name in imagenet_names()]
    assert {name: names.index(name) for name in IMAGENETTE} == IMAGENETTE


def test_labels_are_matched_by_number_and_by_any_synonym():
    numbers = class_numbers(imagenet_names())
    for spelling in ("English springer", "english springer spaniel", "English_springer"):
        assert numbers[plain(spelling)] == 217
    assert numbers[plain("chainsaw")] == 491
    hub_names = ["gas pump, gasoline pump, petrol pump", "church, church building"]
    assert class_numbers(hub_names)["petrol pump"] == 0
    assert class_numbers(hub_names)["church"] == 1


def test_top1_among_all_and_among_ten_are_two_metrics():
    """A cassette player taken for a tape player: wrong among 1000, right among ten."""
    tape_player = imagenet_names().index("tape player")
    network = answering(tape_player, IMAGENETTE["cassette player"])
    labels = ["cassette player", "church", "", "unicorn"]
    full, ten = Classifier(), Classifier(ways="imagenette")
    assert (full.name, ten.name) == ("classifier", "classifier_10way") and full.version != ten.version
    found = full.judged(network, pictures(4, size=8), labels)
    assert found["answer"][0] == "tape player" and found["label_id"].tolist() == [482, 497, -1, -1]
    assert found["value"].tolist() == pytest.approx([0, 0, math.nan, math.nan], nan_ok=True)
    assert [entry[0] for entry in json.loads(found["best"][0])][:2] == [tape_player, 482]
    among_ten = ten.judged(network, pictures(4, size=8), labels)
    assert among_ten["value"].tolist() == pytest.approx([1, 0, math.nan, math.nan], nan_ok=True)
    top3 = Classifier(top=3)
    assert top3.name == "classifier_top3"
    assert top3.judged(network, pictures(1, size=8), labels[:1])["value"].tolist() == [1.0]


def rece_release(target: str, rows: pd.DataFrame) -> tuple[float, float]:
    """Lines 98 to 103 of RECE's imageclassify.py, by hand: accuracy of the target and of the others."""
    of_target, others, n_target, n_others = 0, 0, 0, 0
    for label, right in zip(rows.label, rows.value, strict=True):
        if label == target.lower():
            of_target += right
        else:
            others += right
        n_target, n_others = n_target + (label == target), n_others + (label != target)
    return of_target / n_target, others / n_others


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("target", ["tench", "English springer", "French horn", "church"])
def test_the_blind_classifier_is_that_of_the_release(target: str, share: float) -> None:
    """A class that is not known again is at 0 where it is the target, and its hits make the others better than perfect."""
    classes = [name if name in ("tench", "church") else name.title() for name in IMAGENETTE]
    classes = [
        {"English Springer": "English springer", "French Horn": "French horn"}.get(name, name) for name in classes
    ]
    per_class, metric = 5, Classifier(unseen=["English springer", "French horn"])
    plan = pd.DataFrame(
        [
            {
                "eraser": eraser, "task": target, "task_kind": "object", "kind": "object", "attack": "", "label": label,
                "role": "erase" if label == target else "retain", "prompt_id": f"{label}{i}", "prompt": f"a {label}",
                "key": f"{eraser}{label}{i}", "original_key": f"none{label}{i}", "clean_key": f"{eraser}{label}{i}",
                "edit_key": "", "value": float(i < share * per_class),
            }
            for eraser in ("none", "rece") for label in classes for i in range(per_class)
        ]
    )  # fmt: skip
    scores = {metric.records_id: plan[["key", "label", "value"]]}
    measured = measure(plan.drop(columns="value"), scores, [metric])
    ours = measured[(measured.eraser == "rece") & (measured.task == target)].set_index("role").value
    expected = rece_release(target, plan[plan.eraser == "rece"])
    assert (ours["erase"], ours["retain"]) == pytest.approx(expected)
    if share == 1.0:
        assert expected == pytest.approx((1.0, 1.0) if target in ("tench", "church") else (0.0, 10 / 9))


def test_the_blind_classifier_sees_what_the_classifier_saw() -> None:
    blind = Classifier(unseen=["English springer"])
    assert blind.records_id == Classifier().records_id == Classifier().id and blind.id != Classifier().id


def test_a_network_that_gives_nan_has_not_answered():
    network = classifier._Network(lambda images: torch.full((len(images), 1000), math.nan), tuple(imagenet_names()))
    rows = Classifier().judged(network, pictures(2, size=8), ["church", "tench"])
    assert rows["value"].isna().all() and rows["answer"].tolist() == ["", ""]


def test_unknown_choices_are_refused():
    for wrong, message in (
        ({"backend": "torchvison"}, "Did you mean 'torchvision'"),
        ({"model": "resnet5"}, "Did you mean 'resnet50'"),
        ({"weights": "IMAGENET1K_V3"}, "Did you mean 'IMAGENET1K_V2'"),
        ({"backend": "hub", "model": "microsoft/resnet-50"}, "pin microsoft/resnet-50 to a commit"),
        ({"top": 6}, "not from 1 to 5"),
        ({"ways": "imagenet"}, "neither imagenette nor a list"),
        ({"kinds": ["objects"]}, "Did you mean 'object'"),
    ):
        with pytest.raises(UserError, match=message):
            Classifier(**wrong)
    with pytest.raises(UserError, match="has no class 'chrch'. Did you mean 'church'"):
        Classifier(ways=["chrch", "tench"]).judged(answering(0), pictures(1), ["church"])


def test_torchvision_network_by_its_own_transform(monkeypatch, tmp_path):
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    metric = Classifier(model="resnet18", weights="IMAGENET1K_V1", device="cpu", batch_size=2)
    assert "erasebench prefetch" in metric.unavailable()
    with pytest.raises(UserError, match="erasebench prefetch"):
        metric.score(pictures(1), plan_rows(["church"]))
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None).eval()
    place = _common.torch_hub_file(metric._torchvision_weights().url)
    place.parent.mkdir(parents=True)
    torch.save(network.state_dict(), place)
    assert metric.unavailable() is None
    with pytest.raises(UserError, match="damaged"):
        metric.score(pictures(1), plan_rows(["church"]))
    monkeypatch.setattr(_common, "short_hash", lambda path: "f37072fd")
    images = pictures(3, size=80)
    found = metric.score(images, plan_rows(["church"] * 3))
    transform = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    with torch.inference_mode():
        expected = network(torch.stack([transform(image) for image in images])).softmax(1).max(1)
    assert found["answer"].tolist() == [imagenet_names()[i] for i in expected.indices.tolist()]
    np.testing.assert_allclose(found["answer_p"], expected.values, rtol=1e-4)


CACHED = """
import pathlib, sys
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from safetensors.torch import save_file
sys.path.insert(0, sys.argv[1])
from metric_helpers import pictures, plan_rows
from erasebench.metrics.classifier import Classifier

def snapshot(repo, commit):
    folder = pathlib.Path(HF_HUB_CACHE) / ("models--" + repo.replace("/", "--"))
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    return folder / "snapshots" / commit

from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification
hub = Classifier(backend="hub", model="some/artists", revision="a" * 40, kinds=["artist"], device="cpu")
assert "erasebench prefetch" in hub.unavailable(), hub.unavailable()
torch.manual_seed(0)
names = {0: "claude-monet", 1: "vincent-van-gogh"}
config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], id2label=names)
place = snapshot("some/artists", "a" * 40)
ResNetForImageClassification(config).save_pretrained(place)
ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(place)
assert hub.unavailable() is None
found = hub.score(pictures(3), plan_rows(["Vincent van Gogh", "Claude Monet", "Picasso"], kind="artist"))
assert found["label_id"].tolist() == [1, 0, -1]
assert found["value"].notna().tolist() == [True, True, False]

import timm
small = Classifier(backend="timm", model="test_resnet.r160_in1k", device="cpu")
assert "erasebench prefetch" in small.unavailable()
assert small.version.endswith("-main")
network = timm.create_model("test_resnet.r160_in1k", pretrained=False)
save_file(network.state_dict(), snapshot("timm/test_resnet.r160_in1k", "b" * 40) / "model.safetensors")
small = Classifier(backend="timm", model="test_resnet.r160_in1k", device="cpu")
assert small.version.endswith("-bbbbbbbb"), small.version
found = small.score(pictures(2), plan_rows(["English springer", "gas pump"]))
assert found["label_id"].tolist() == [217, 571]
print("fine")
"""


def test_hub_and_timm_classifiers_from_a_cache(tmp_path):
    """A made-up cache of the Hub, read without a network: safetensors only, pinned by commit."""
    pytest.importorskip("timm")
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", CACHED, os.path.dirname(os.path.dirname(__file__))],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip().endswith("fine"), done.stderr[-3000:]
