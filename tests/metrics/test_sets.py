"""FID and KID."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_helpers import pictures, plan_rows, random_judge, scored
from picture_helpers import read_picture

from erasebench.errors import UserError
from erasebench.metrics import _embedded, _features, kid
from erasebench.metrics.fid import Fid, frechet_distance
from erasebench.metrics.kid import Kid, kernel_distance


class FirstPixels(torch.nn.Module):
    """A feature extractor for torchmetrics: the first numbers of an image."""

    num_features = 12

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, : self.num_features].float() / 255


def image_sets(n: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, 256, (n, 3, 4, 4), dtype=torch.uint8, generator=generator)
    return first, torch.randint(0, 190, (m, 3, 4, 4), dtype=torch.uint8, generator=generator)


def features(images: torch.Tensor) -> np.ndarray:
    return FirstPixels()(images).numpy().astype(np.float64)


def test_frechet_distance_is_that_of_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    ours, theirs = image_sets(60, 45)
    reference = FrechetInceptionDistance(feature=FirstPixels(), input_img_size=(3, 4, 4)).set_dtype(torch.float64)
    reference.update(theirs, real=True)
    reference.update(ours, real=False)
    assert frechet_distance(features(ours), features(theirs)) == pytest.approx(float(reference.compute()), rel=1e-6)


def test_kernel_distance_is_that_of_torchmetrics():
    from torchmetrics.image.kid import KernelInceptionDistance

    ours, theirs = image_sets(50, 50)
    reference = KernelInceptionDistance(feature=FirstPixels(), subsets=1, subset_size=50)
    reference.update(theirs, real=True)
    reference.update(ours, real=False)
    expected = float(reference.compute()[0])
    assert kernel_distance(features(ours), features(theirs)) == pytest.approx(expected, rel=1e-4)


@given(st.integers(2, 20), st.integers(2, 20), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_frechet_distance_with_any_number_of_images(n, m, d, seed):
    """Against the formula by eigenvalues of the product, also where there are fewer images than features."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)), rng.normal(1, 2, size=(m, d))
    cov_a, cov_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    cross = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real.clip(0)).sum()
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, abs=2e-4)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), abs=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_is_unbiased_and_frechet_is_not():
    rng = np.random.default_rng(0)
    pairs = [rng.normal(size=(2, 30, 20)) for _ in range(60)]
    distances = np.array([kernel_distance(a, b) for a, b in pairs])
    assert abs(distances.mean()) < 3 * distances.std() / np.sqrt(len(distances))
    assert min(frechet_distance(a, b) for a, b in pairs) > 1  # two sets of one distribution


def test_paired_kernel_distance_is_unbiased_for_images_that_resemble_their_partners():
    rng = np.random.default_rng(0)
    paired, usual = [], []
    for _ in range(100):
        common = 2 * rng.normal(size=(20, 10))
        a, b = common + rng.normal(size=common.shape), common + rng.normal(size=common.shape)
        paired.append(kernel_distance(a, b, range(20)))
        usual.append(kernel_distance(a, b))
    error = np.std(paired) / 10
    assert abs(np.mean(paired)) < 3 * error
    assert np.mean(usual) < -3 * error
    assert kernel_distance(a, a, range(20)) == pytest.approx(0, abs=1e-12)


def test_an_original_that_several_edits_share_does_not_pull_the_distance():
    """Pooled over tasks, an unedited image stands beside each of its edited ones."""
    rng = np.random.default_rng(0)
    pooled = []
    for _ in range(100):
        original = np.repeat(rng.normal(size=(15, 8)), 3, axis=0)
        edited = rng.normal(size=original.shape)
        pooled.append(kernel_distance(edited, original, np.repeat(np.arange(15), 3)))
    assert abs(np.mean(pooled)) < 3 * np.std(pooled) / 10


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric_class", [Fid, Kid])
def test_two_images_are_the_least(judge_folder, metric_class):
    metric = metric_class(extractor="embedded", device="cpu")
    rows = plan_rows(["church"] * 2, role="retain")
    edited = scored(metric, pictures(2, seed=1), rows)
    original = scored(metric, pictures(2, seed=2), rows.assign(key=rows["original_key"]))
    assert metric.reduce(edited, original).n == 2 and metric.reduce(edited, original).how.startswith("none")
    assert metric.reduce(edited[:1], original[:1]).how == "not run"


def test_large_sets_are_compared_by_subsets(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 4)), rng.normal(0.5, 1, size=(300, 4))
    whole = kernel_distance(a, b)
    monkeypatch.setattr(kid, "SUBSET", 100)
    assert kernel_distance(a, b) == pytest.approx(whole, rel=0.1)
    assert kernel_distance(a, b) != whole
    assert kernel_distance(a, b) == kernel_distance(a, b)
    assert kernel_distance(a, a, range(300)) == pytest.approx(0, abs=1e-12)


@pytest.fixture
def judge_folder(tmp_path, monkeypatch):
    random_judge(tmp_path / "judge")
    monkeypatch.setattr(_embedded, "JUDGE_FOLDER", tmp_path / "judge")
    return tmp_path


@pytest.mark.parametrize("metric_class", [Fid, Kid])
def test_distance_to_the_unedited_images(judge_folder, metric_class):
    metric = metric_class(extractor="embedded", device="cpu")
    rows = plan_rows(["church"] * 30, role="retain")
    edited = scored(metric, pictures(30, seed=1), rows)
    original = scored(metric, pictures(30, seed=2), rows.assign(key=rows["original_key"]))
    assert metric.unavailable() is None
    estimate = metric.reduce(edited, original)
    assert estimate.n == 30 and estimate.low <= estimate.value <= estimate.high
    same = metric.reduce(original.assign(key=rows["key"]), original)
    assert same.value == pytest.approx(0, abs=1e-12) and same.n == 30  # a no-op eraser: other keys, the same images
    assert metric.reduce(original, original).how == "reference"
    assert math.isnan(metric.reduce(original, None).value)
    assert metric.values(edited).isna().all()


def test_one_image_under_two_prompts_counts_once(judge_folder):
    metric = Kid(extractor="embedded", device="cpu", resamples=0)
    rows = plan_rows(["church"] * 6, role="retain")
    edited, original = scored(metric, pictures(6, seed=1), rows), scored(metric, pictures(6, seed=2), rows)
    original["key"] = rows["original_key"]
    twice = [0, 1, 2, 3, 4, 5, 5]
    again = metric.reduce(
        edited.iloc[twice].assign(prompt_id=list("abcdefg")), original.iloc[twice].assign(prompt_id=list("abcdefg"))
    )
    assert again.value == metric.reduce(edited, original).value and again.n == 6
    with pytest.raises(ValueError, match="same order"):
        metric.reduce(edited, original.iloc[::-1])


def real_images(folder: Path, count: int = 10, seed: int = 3) -> Path:
    folder.mkdir()
    for place, image in enumerate(pictures(count, size=80, seed=seed)):
        image.save(folder / f"{place}.bmp")  # every file of one size: their content is all that differs
    return folder


def reference_records(metric) -> pd.DataFrame:
    """The records of a metric's reference images, as scoring stores them."""
    keys, files = zip(*metric.reference_images().items(), strict=True)
    images = [read_picture(file).convert("RGB") for file in files]
    return pd.concat([pd.DataFrame({"key": keys}), metric.score(images, pd.DataFrame({"key": keys}))], axis=1)


def test_distance_to_real_images_has_its_own_name_and_its_reference_is_scored_like_an_image(judge_folder):
    folder = real_images(judge_folder / "real")
    metric = Kid(extractor="embedded", against="real", reference=str(folder), device="cpu")
    assert metric.name == "kid_embedded_real" and metric.unavailable() is None
    assert metric.records_id == Fid(extractor="embedded").records_id
    assert len(metric.reference_images()) == 10 and all(
        key.startswith(metric.reference_key) for key in metric.reference_images()
    )
    assert Kid(extractor="embedded").reference_images() == {} and Kid(extractor="embedded").reference_key == ""
    rows = scored(metric, pictures(10, size=80, seed=3), plan_rows([""] * 10, role="general"))
    estimate = metric.reduce(rows, reference_records(metric))
    assert estimate.value < 0.05 and estimate.n == 10


def test_a_table_needs_records_and_no_reference_folder(judge_folder, monkeypatch):
    folder = real_images(judge_folder / "real")
    metric = Fid(extractor="embedded", against="real", reference=str(folder), device="cpu")
    rows, records = (
        scored(metric, pictures(10, seed=1), plan_rows([""] * 10, role="general")),
        reference_records(metric),
    )
    shutil.rmtree(folder)
    monkeypatch.setattr(_embedded, "judge_features", lambda *_: pytest.fail("a table extracted features"))
    assert metric.reduce(rows, records).value > 0
    for lacking in (records[:-1], records[:0], None):
        assert metric.reduce(rows, lacking).how == "not run", "a distance to a part of the set is another distance"


def test_another_set_is_known_by_its_content_and_never_taken_for_the_first(judge_folder):
    """Files of the same names and sizes; and the same files under other names and dates."""
    first, other = real_images(judge_folder / "one"), real_images(judge_folder / "two", seed=4)
    sizes = [sorted((file.name, file.stat().st_size) for file in folder.iterdir()) for folder in (first, other)]
    assert sizes[0] == sizes[1]
    one, two = (
        Kid(extractor="embedded", against="real", reference=str(folder), device="cpu") for folder in (first, other)
    )
    assert one.version != two.version and not set(one.reference_images()) & set(two.reference_images())
    copy = judge_folder / "copy"
    copy.mkdir()
    for number, file in enumerate(sorted(first.iterdir(), reverse=True)):
        shutil.copyfile(file, copy / f"renamed {number}{file.suffix}")
    again = Kid(extractor="embedded", against="real", reference=str(copy), device="cpu")
    assert again.version == one.version
    assert [file.read_bytes() for file in again.reference_images().values()] == [
        file.read_bytes() for file in one.reference_images().values()
    ]
    next(iter(first.iterdir())).unlink()
    assert Kid(extractor="embedded", against="real", reference=str(first)).version != one.version


def test_distance_to_a_retrained_model_is_one_of_erased_prompts_and_has_a_name_of_its_own():
    metric = Kid(extractor="embedded", against="retrained", device="cpu")
    assert metric.name == "kid_embedded_retrained" and metric.directions == {"erase": "down"}
    assert metric.beside == "retrained" and Kid(extractor="embedded").beside == "none"
    assert metric.records_id == Kid(extractor="embedded").records_id, "no image is scored twice for it"
    assert metric.reference_key == "" and metric.reference_images() == {}


def test_absent_reference_and_wrong_choices(tmp_path):
    metric = Fid(extractor="inception", against="real")
    assert metric.unavailable().endswith("set metric.fid_inception_real.reference=FOLDER")
    assert "holds none" in Fid(extractor="inception", against="real", reference=str(tmp_path)).unavailable()
    for wrong, message in (
        ({"extractor": "inceptionv3"}, "Did you mean 'inception'"),
        ({"extractor": "inception", "against": "coco"}, "neither original nor retrained nor real"),
        ({"extractor": "inception", "reference": "x"}, "needs against=real"),
    ):
        with pytest.raises(UserError, match=message):
            Fid(**wrong)


def test_inception_features_of_images_of_any_size(tmp_path, monkeypatch):
    """The path through torchmetrics' network, with the weights it starts from."""
    pytest.importorskip("torch_fidelity")
    torch.save({"x": torch.zeros(1)}, tmp_path / "weights.pth")
    monkeypatch.setattr(_features, "check_torch_hub", lambda url: tmp_path / "weights.pth")
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
    _features._inception.cache_clear()
    images = [*pictures(2, size=64), *pictures(1, size=96)]
    found = _features.inception_features(images, "cpu", 2)
    assert found.shape == (3, 2048) and found.dtype == np.float32
    np.testing.assert_allclose(found[:2], _features.inception_features(images[:2], "cpu", 2), rtol=1e-4, atol=1e-5)
    _features._inception.cache_clear()


def test_a_frechet_distance_says_that_it_is_biased_and_a_kernel_distance_is_not() -> None:
    rng = np.random.default_rng(0)
    gap = {"fid": [], "kid": []}
    for n in (20, 200):
        ours, theirs = rng.normal(size=(n, 8)), rng.normal(size=(n, 8))
        for name, metric in (("fid", Fid(extractor="embedded")), ("kid", Kid(extractor="embedded"))):
            estimate = metric._estimate(ours, theirs, None)
            gap[name].append(estimate.value)
            assert (estimate.how == "percentile, biased") == (name == "fid")
            assert estimate.low <= estimate.value <= estimate.high
    assert gap["fid"][0] > 3 * gap["fid"][1] > 0, "two sets of one kind look the further apart the fewer they are"
