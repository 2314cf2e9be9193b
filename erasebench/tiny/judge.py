"""The judge: a convolutional classifier that names everything in a picture of the embedded world, trained on renders only.

It plays the part that ResNet-50, the artist classifier, the celebrity detector and NudeNet play for Stable Diffusion: one
head each for objects, artists, people, unsafe content and everyday things. Each name has a chance of its own, so that two
things in a picture are both seen; and it says of a picture that it is broken (scrambled, noise).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

FEATURES = 192
"""Numbers in a feature vector."""

SEEN = 0.5
"""The chance from which on a name is seen."""

BROKEN = "broken"
"""What is asked beside the heads: whether the picture is none of the world's."""

NOTHING_SEEN = "none"
"""What a head answers if it sees none of its names."""

AND = " + "
"""Between the names that a head sees in one picture."""


def answer(chances: Sequence[float], names: Sequence[str]) -> tuple[str, float]:
    """What a head says of a picture: all names that it sees, the most probable first, and the probability of the answer.

    That is the first name's; of :data:`NOTHING_SEEN`, how sure it is that the likeliest name is absent. A head that gives NaN
    has not looked: its answer is empty.
    """
    likely = sorted(zip(chances, names, strict=True), key=lambda pair: -pair[0])
    if any(math.isnan(chance) for chance in chances):
        return "", math.nan
    seen = AND.join(name for chance, name in likely if chance >= SEEN)
    return seen or NOTHING_SEEN, likely[0][0] if seen else 1 - likely[0][0]


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Judge(nn.Module):
    """Six convolutions, mean and maximum over the picture, a feature layer, and one output a name and one for broken.

    `heads` maps each head to its names.
    """

    def __init__(self, heads: Mapping[str, Sequence[str]], channels: Sequence[int] = (48, 96, 128, 192, 256)):
        super().__init__()
        self.heads = {head: tuple(names) for head, names in heads.items()}
        self.channels = tuple(channels)
        a, b, c, d, e = self.channels
        self.trunk = nn.Sequential(
            _block(3, a, 2), _block(a, b, 1), _block(b, c, 2), _block(c, c, 1), _block(c, d, 2), _block(d, e, 1)
        )
        self.feature_layer = nn.Linear(2 * e, FEATURES)
        self.outputs = nn.Linear(FEATURES, sum(len(names) for names in self.heads.values()) + 1)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Feature vectors [n, 192] (after the ReLU), the embedded model's own features for FID-like distances.

        `images` [n, 3, 64, 64]: uint8, or float in [0, 1].
        """
        return self._features(_centred(images, next(self.parameters())))

    def chances(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """By head the chance of each of its names, [n, names]; under "broken" that of a broken picture, [n, 1].

        `images` as for `features`.
        """
        return self.split(self.outputs(self.features(images)).float().sigmoid())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [n, all names + 1] for float images in [-1, 1], as in training; the last column is "broken"."""
        return self.outputs(self._features(images))

    def split(self, outputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The joint output [n, all names + 1] cut into heads and "broken"."""
        sizes = [*(len(names) for names in self.heads.values()), 1]
        return dict(zip((*self.heads, BROKEN), outputs.split(sizes, dim=1), strict=True))

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
