"""UnlearnCanvas's two classifiers: which style, and which object, an image shows (Zhang et al., 2024; code 920cfd1)."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from erasebench.errors import UserError, suggest
from erasebench.metrics._common import batches, device, has_package, short_hash
from erasebench.scores.metric import Metric

CANVAS_STYLES = (
    "Abstractionism", "Artist Sketch", "Blossom Season", "Bricks", "Byzantine", "Cartoon", "Cold Warm", "Color Fantasy",
    "Comic Etch", "Crayon", "Cubism", "Dadaism", "Dapple", "Defoliation", "Early Autumn", "Expressionism", "Fauvism",
    "French", "Glowing Sunset", "Gorgeous Love", "Greenfield", "Impressionism", "Ink Art", "Joy", "Liquid Dreams",
    "Magic Cube", "Meta Physics", "Meteor Shower", "Monet", "Mosaic", "Neon Lines", "On Fire", "Pastel",
    "Pencil Drawing", "Picasso", "Pop Art", "Red Blue Ink", "Rust", "Seed Images", "Sketch", "Sponge Dabbed",
    "Structuralism", "Superstring", "Surrealism", "Ukiyoe", "Van Gogh", "Vibrant Flow", "Warm Love", "Warm Smear",
    "Watercolor", "Winter",
)  # fmt: skip
"""Answers of the classifier of styles, in the order of its head (constants/const.py)."""

CANVAS_OBJECTS = (
    "Architectures", "Bears", "Birds", "Butterfly", "Cats", "Dogs", "Fishes", "Flame", "Flowers", "Frogs", "Horses",
    "Human", "Jellyfish", "Rabbits", "Sandwiches", "Sea", "Statues", "Towers", "Trees", "Waterfalls",
)  # fmt: skip
"""Answers of the classifier of objects."""

DOMAINS = {"artist": "style", "object": "object"}
"""The domain of a task, by the kind of its concepts."""

PROMPT = re.compile(r"An? (?P<object>.+) image in (?P<style>.+) style\.?")
"""What every image is asked for; an image has a style and an object whichever of them is erased."""

NETWORK = "vit_large_patch16_224.augreg_in21k"
"""The network of timm that both classifiers are, with a new last layer."""

CONVERT = (
    'python -c "import sys,torch,safetensors.torch as s;'
    "s.save_file(torch.load(sys.argv[1],map_location='cpu',weights_only=True)['model_state_dict'],sys.argv[2])\""
    " style50.pth style.safetensors"
)
"""What makes a file of tensors alone out of a released one, on a machine that trusts it."""

REPORTS = ("own", "cross")


@dataclass(kw_only=True, eq=False)
class UnlearnCanvas(Metric):
    """Accuracy in the domain that is erased from (``own``), or in the other one (``cross``).

    Of a task that erases styles ``own`` asks the classifier of styles: erased images are 1 - UA, retained ones IRA.
    ``cross`` asks that of objects about all images, the erased style's too: CRA, which stands under retained. Of a task that
    erases objects it is the other way round. Images are squeezed to 224 x 224 and scaled to -1 to 1 (accuracy.py). Stored
    for an image are both answers with their probabilities.

    Attributes:
        report: ``own`` or ``cross``.
        style: ``.safetensors`` of the classifier of styles; the released file is a pickle on a drive, see :data:`CONVERT`.
        object: that of objects.
        network: of timm; another one than :data:`NETWORK` is for tests.
        device: where it runs.
        batch_size: images at a time.

    Raises:
        UserError: no such report.
    """

    report: str = "own"
    style: str | None = None
    object: str | None = None
    network: str = NETWORK
    device: str = "auto"
    batch_size: int = 32

    kinds = ("artist", "object")
    inputs = ("prompt",)
    unit = "%"
    for_scoring = ("style", "object", "device", "batch_size")

    def __post_init__(self) -> None:
        if self.report not in REPORTS:
            raise UserError(f"unlearncanvas.report: {self.report!r} is not one of {', '.join(REPORTS)}")
        self.name = f"unlearncanvas_{self.report}"
        files = [
            short_hash(Path(file)) if file and Path(file).is_file() else "absent" for file in (self.style, self.object)
        ]
        self.version = "-".join(["1", *files])
        self.directions = {"erase": "down", "retain": "up"} if self.report == "own" else {"retain": "up"}
        what = (
            "of the domain that is erased from (1 - UA, IRA)" if self.report == "own" else "of the other domain (CRA)"
        )
        self.describe = f"accuracy of UnlearnCanvas's classifier {what}"

    @property
    def records_id(self) -> str:
        return f"unlearncanvas@{self.version}"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("UnlearnCanvas's classifiers of styles and objects, as .safetensors", "package timm")

    def unavailable(self) -> str | None:
        if not has_package("timm"):
            return "the package timm is missing; run: pip install timm"
        for domain in ("style", "object"):
            file = getattr(self, domain)
            if not file or Path(file).suffix != ".safetensors" or not Path(file).is_file():
                return (
                    f"UnlearnCanvas's classifier of {domain}s: {file or 'no file'} is no .safetensors file that is here. The "
                    f"release has it as a pickle on a drive (its README): convert it with {CONVERT} and set "
                    f"metric.{self.name}.{domain}=FILE"
                )
        return None

    def applies_to(self, rows: pd.DataFrame) -> pd.DataFrame:
        """As of any metric; of the other domain erased images count as well, beside the retained ones."""
        if self.report == "cross":
            rows = rows.assign(role=rows["role"].replace("erase", "retain"))
        return super().applies_to(rows)

    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        if reason := self.unavailable():
            raise UserError(reason)
        asked = [_asked_for(prompt) for prompt in rows["prompt"]]
        columns: dict[str, Any] = {}
        for domain, names in (("style", CANVAS_STYLES), ("object", CANVAS_OBJECTS)):
            network, on = self._networks[domain], device(self.device)
            logits = torch.cat(
                [network(pixels(part).to(on)).float().cpu() for part in batches(images, self.batch_size)]
            )
            chances, best = logits.softmax(dim=1).max(dim=1)
            columns[domain] = [names[place] for place in best.tolist()]
            columns[f"{domain}_p"] = chances.tolist()
            columns[f"{domain}_asked"] = [one[domain] for one in asked]
        return pd.DataFrame(columns)

    def values(self, rows: pd.DataFrame) -> pd.Series:
        own = rows["kind"].map(DOMAINS)
        domain = own if self.report == "own" else own.map({"style": "object", "object": "style"})
        right = np.where(
            domain == "style", rows["style"] == rows["style_asked"], rows["object"] == rows["object_asked"]
        )
        return pd.Series(right.astype(float), index=rows.index).where(domain.notna())

    def answers(self, rows: pd.DataFrame) -> pd.Series:
        return rows["object"] + " in " + rows["style"]

    @functools.cached_property
    def _networks(self) -> dict[str, torch.nn.Module]:
        import timm
        from safetensors.torch import load_file

        networks = {}
        for domain, names in (("style", CANVAS_STYLES), ("object", CANVAS_OBJECTS)):
            network = timm.create_model(self.network, pretrained=False, num_classes=len(names))
            weights = load_file(str(getattr(self, domain)))
            own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
            given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
            if own != given:
                wrong = sorted(name for name in own | given if own.get(name) != given.get(name))
                raise UserError(
                    f"{getattr(self, domain)}: no classifier of {len(names)} {domain}s ({self.network}): {wrong[0]} is "
                    f"{given.get(wrong[0], 'absent')} and should be {own.get(wrong[0], 'absent')}"
                )
            network.load_state_dict(weights)
            networks[domain] = network.eval().requires_grad_(False).to(device(self.device))
        return networks


def pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    """Images as ``[n, 3, 224, 224]`` from -1 to 1: torchvision's Resize((224, 224)), ToTensor and Normalize(.5, .5)."""
    from torchvision.transforms import Compose, Normalize, Resize, ToTensor

    transform = Compose([Resize((224, 224)), ToTensor(), Normalize([0.5], [0.5])])
    return torch.stack([transform(image.convert("RGB")) for image in images])


def _asked_for(prompt: str) -> dict[str, str]:
    """The style and the object that a prompt asks for.

    Raises:
        UserError: it is none of UnlearnCanvas's.
    """
    match = PROMPT.fullmatch(prompt.strip())
    if not match:
        raise UserError(
            f"prompt {prompt[:80]!r}: not one of UnlearnCanvas's (A Dogs image in Van Gogh style.); use prompts=unlearncanvas_style"
        )
    asked = match.groupdict()
    for domain, names in (("style", CANVAS_STYLES), ("object", CANVAS_OBJECTS)):
        if asked[domain] not in names:
            raise UserError(f"prompt {prompt[:80]!r}: no {domain} {asked[domain]!r}.{suggest(asked[domain], names)}")
    return asked
