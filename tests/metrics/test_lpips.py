"""LPIPS to the unedited image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from metric_helpers import pictures, plan_rows

from erasebench.errors import UserError
from erasebench.metrics import lpips as ours

package = pytest.importorskip("lpips")


@pytest.fixture
def alexnet(monkeypatch):
    """AlexNet of random weights, in place of the download."""
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.alexnet(weights=None)
    monkeypatch.setattr(ours, "read_torch_hub", lambda url: network.state_dict())
    ours._network.cache_clear()
    yield network
    ours._network.cache_clear()


def test_weights_land_in_the_right_layers(alexnet, monkeypatch):
    """Equal to the package's own LPIPS around the same AlexNet."""
    monkeypatch.setattr(package.pretrained_networks.tv, "alexnet", lambda pretrained: alexnet)
    reference = package.LPIPS(net="alex", verbose=False)
    images, originals = pictures(3, size=64), pictures(3, size=64, seed=1)
    tensors = [
        torch.from_numpy(np.stack([np.asarray(image) for image in some])).permute(0, 3, 1, 2) / 127.5 - 1
        for some in (images, originals)
    ]
    with torch.inference_mode():
        expected = reference(*tensors).flatten()
    metric = ours.Lpips(variant="full", device="cpu", batch_size=2)
    found = metric.score(images, plan_rows([""] * 3), originals)["value"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (found > 0).all()


def test_an_image_is_at_no_distance_from_itself(alexnet):
    images = [*pictures(1, size=64), *pictures(1, size=128)]
    for variant in ours.VARIANTS:
        metric = ours.Lpips(variant=variant, device="cpu")
        assert metric.score(images, plan_rows(["", ""]), images)["value"].tolist() == [0.0, 0.0]


def test_the_two_ways_to_64_pixels_differ():
    rng = np.random.default_rng(0)
    noisy = ours.Image.fromarray(rng.integers(0, 256, size=(512, 512, 3), dtype=np.uint8))
    smooth, sharp = ours.resize_antialiased(noisy), ours.resize_plain(noisy)
    assert smooth.shape == sharp.shape == (64, 64, 3)
    assert smooth.std() < 0.5 * sharp.std()  # antialiasing averages the noise away, sampling keeps it
    small = pictures(1, size=64)[0]
    np.testing.assert_array_equal(ours.resize_antialiased(small), np.asarray(small))
    np.testing.assert_array_equal(ours.resize_plain(small), np.asarray(small))


def test_refusals(alexnet):
    metric = ours.Lpips(variant="full", device="cpu")
    with pytest.raises(UserError, match="unedited"):
        metric.score(pictures(1), plan_rows([""]))
    with pytest.raises(UserError, match="has shape"):
        metric.score(pictures(1), plan_rows([""]), pictures(1, size=96))
    with pytest.raises(UserError, match="Did you mean '64_cv2'"):
        ours.Lpips(variant="64cv2")
