"""The judge: a convolutional classifier of the embedded world's labels, trained on renders only.

It plays the part that ResNet-50, the artist classifier, the celebrity detector and NudeNet play for Stable Diffusion:
one head each for objects, artists, people and unsafe content, and every head can answer "none" (its last class).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

FEATURES = 192
"""Numbers in a feature vector."""


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Judge(nn.Module):
    """Six convolutions, mean and maximum over the picture, a feature layer, and one linear layer a head.

    `heads` maps each head to its class names; a head has one more output, "none", at the index behind its names.
    """

    def __init__(self, heads: Mapping[str, Sequence[str]], channels: Sequence[int] = (32, 64, 96, 128, 192)):
        super().__init__()
        self.heads = {head: tuple(names) for head, names in heads.items()}
        self.channels = tuple(channels)
        a, b, c, d, e = self.channels
        self.trunk = nn.Sequential(
            _block(3, a, 2), _block(a, b, 1), _block(b, c, 2), _block(c, c, 1), _block(c, d, 2), _block(d, e, 1)
        )
        self.feature_layer = nn.Linear(2 * e, FEATURES)
        self.outputs = nn.Linear(FEATURES, sum(len(names) + 1 for names in self.heads.values()))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Feature vectors [n, 192] (after the ReLU), the embedded model's own features for FID-like distances.

        `images` [n, 3, 64, 64]: uint8, or float in [0, 1].
        """
        return self._features(_centred(images, next(self.parameters())))

    def logits(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of each head, [n, classes + 1]; the last column is "none". `images` as for `features`."""
        return self.split(self.outputs(self.features(images)))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of each head for float images in [-1, 1], as in training."""
        return self.split(self.outputs(self._features(images)))

    def split(self, outputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The joint output [n, all classes] cut into heads."""
        sizes = [len(names) + 1 for names in self.heads.values()]
        return dict(zip(self.heads, outputs.split(sizes, dim=1), strict=True))

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.trunk(images)
        return torch.relu(self.feature_layer(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)))

    def save(self, folder: Path) -> None:
        """Write judge.safetensors (float16) and judge.json (heads, classes, channels) to `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        save_file({k: v.contiguous() for k, v in weights.items()}, folder / "judge.safetensors")
        config = {"heads": {head: list(names) for head, names in self.heads.items()}, "channels": list(self.channels)}
        (folder / "judge.json").write_text(json.dumps(config, indent=1) + "\n")


def read_judge(path: Path | str | None = None) -> Judge:
    """The judge of a folder written by `Judge.save` (default: the shipped one), in float32 and eval mode.

    Raises FileNotFoundError if the folder holds no judge.
    """
    folder = Path(path) if path is not None else Path(__file__).parent / "weights" / "judge"
    config = json.loads((folder / "judge.json").read_text())
    judge = Judge(config["heads"], config["channels"])
    weights = load_file(folder / "judge.safetensors")
    judge.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    return judge.eval().requires_grad_(False)


def _centred(images: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Images as the trunk wants them: in [-1, 1], of the weights' type and device."""
    if images.dtype == torch.uint8:
        images = images.to(torch.float32) / 255
    return (images * 2 - 1).to(like)
