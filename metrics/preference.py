"""What people would prefer, as two learned judges of HUB guess it: PickScore and LAION's aesthetic predictor."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from PIL import Image

from erasebench.errors import UserError
from erasebench.metrics import _clip, _viewer
from erasebench.metrics._common import batches, device, own_file_hash, own_tensors
from erasebench.scores.metric import Metric

PICKSCORE = "yuvalkirstain/PickScore_v1"
PICKSCORE_PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""What cuts images and texts for it; of that repository no weights are taken."""

PROCESSOR_FILES = ("*.json", "*.txt")

LAYERS = (("layers.0", 1024), ("layers.2", 128), ("layers.4", 64), ("layers.6", 16), ("layers.7", 1))
"""The linear layers of the aesthetic predictor and their widths; dropout stands between them, and nothing else."""

CONVERT = (
    'python -c "import sys,torch,safetensors.torch as s;'
    "s.save_file(torch.load(sys.argv[1],map_location='cpu',weights_only=True),sys.argv[2])\" "
    "sac+logos+ava1-l14-linearMSE.pth aesthetic.safetensors"
)
"""What makes a file of tensors alone out of the released one."""

WHERE = "the aesthetic predictor (christophschuhmann/improved-aesthetic-predictor on GitHub)"


@dataclass(kw_only=True, eq=False)
class PickScore(Metric):
    """PickScore (Kirstain et al., 2023): the scaled cosine of image and prompt by a CLIP that was trained on choices of people.

    HUB reports its mean over COCO captions (quality/evaluation.py); about 21 for Stable Diffusion.

    Attributes:
        model: folder or Hub id of the CLIP.
        revision: of its repository.
        processor: folder or Hub id of its processor.
        device: where it runs.
        batch_size: images at a time.
    """

    model: str = PICKSCORE
    revision: str | None = None
    processor: str = PICKSCORE_PROCESSOR
    device: str = "auto"
    batch_size: int = 16

    name = "pickscore"
    for_scoring = ("model", "processor", "device", "batch_size")
    directions = {"general": "up"}
    inputs = ("prompt",)
    describe = "PickScore: what people would choose, as a CLIP (ViT-H/14) learned it; HUB's alignment of captions"

    def __post_init__(self) -> None:
        models = ((self.model, self.revision), (self.processor, None))
        self.version = "-".join(["1", *(_viewer.viewer_version(*model) for model in models)])

    @property
    def needs(self) -> tuple[str, ...]:
        return (_viewer.shown_source(self.model), f"the processor of {_viewer.shown_source(self.processor)}")

    def unavailable(self) -> str | None:
        if reason := _viewer.unavailable(self.model, self.revision, "metric.pickscore.model"):
            return reason
        folder = _viewer.place_of(self.processor, None)
        if folder is None or not (folder / "preprocessor_config.json").is_file():
            return f"the processor of {self.processor} is not on this machine; run: `erasebench prefetch` metric=[pickscore]"
        return None

    def prefetch(self) -> None:
        _viewer.fetch(self.model, self.revision)
        _viewer.fetch(self.processor, None, PROCESSOR_FILES)

    @torch.inference_mode()
    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        model, processor, on = self._model, self._processor, device(self.device)
        scores: list[float] = []
        for part in batches(list(zip(images, rows["prompt"], strict=True)), self.batch_size):
            pictures, texts = zip(*part, strict=True)
            pixels = processor(images=[image.convert("RGB") for image in pictures], return_tensors="pt").to(on)
            words = processor(text=list(texts), padding=True, truncation=True, max_length=77, return_tensors="pt").to(
                on
            )
            seen = model.visual_projection(model.vision_model(pixels["pixel_values"]).pooler_output)
            read = model.text_projection(model.text_model(**words).pooler_output)
            cosines = torch.nn.functional.cosine_similarity(seen.double(), read.double())
            scores += (model.logit_scale.exp() * cosines).tolist()
        return pd.DataFrame({"value": scores})

    @functools.cached_property
    def _model(self) -> Any:
        from transformers import CLIPModel

        place = _viewer.folder_of(self.model, self.revision)
        loaded = CLIPModel.from_pretrained(place, local_files_only=True, use_safetensors=True)
        return loaded.float().eval().requires_grad_(False).to(device(self.device))

    @functools.cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        place = _viewer.folder_of(self.processor, None)
        return AutoProcessor.from_pretrained(place, local_files_only=True, trust_remote_code=False)


@dataclass(kw_only=True, eq=False)
class Aesthetic(_clip.OnClip):
    """LAION's improved aesthetic predictor: five linear layers on CLIP's unit vector of an image, a mark of about 1 to 10.

    HUB reports its mean over the images of a target's prompts: erasing should not make them ugly.

    Attributes:
        weights: ``.safetensors``; the released file (christophschuhmann/improved-aesthetic-predictor on GitHub) is no
            safetensors, see :data:`CONVERT`.
        backbone: another CLIP than ViT-L-14 is for tests.
        revision: commit of its repository.
        device: where CLIP runs.
        batch_size: images at a time.
    """

    weights: str | None = None
    backbone: str = "ViT-L-14"
    revision: str | None = None
    device: str = "auto"
    batch_size: int = 64

    name = "aesthetic"
    directions = {"erase": "up", "retain": "up", "general": "up"}
    describe = "LAION's improved aesthetic predictor (CLIP ViT-L/14), a mark of about 1 to 10"
    for_scoring = ("weights", "device", "batch_size")

    def __post_init__(self) -> None:
        _clip.check_backbone(self.backbone, "aesthetic.backbone")
        self.version = f"1-{_clip.fingerprint(self.backbone, self.revision)}-{own_file_hash(self.weights)}"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("the aesthetic predictor's weights, as .safetensors", *super().needs)

    def unavailable(self) -> str | None:
        return own_tensors(self.weights, WHERE, "metric.aesthetic.weights", CONVERT) or super().unavailable()

    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        marks = _clip.load_clip(self.backbone, self.revision, self.device, self.batch_size).image(images).double()
        tensors = self._layers(marks.shape[1])
        for layer, _ in LAYERS:
            marks = marks @ tensors[f"{layer}.weight"].T + tensors[f"{layer}.bias"]
        return pd.DataFrame({"value": marks[:, 0].tolist()})

    def _layers(self, width: int) -> dict[str, torch.Tensor]:
        """The tensors of the layers, float64.

        Raises:
            UserError: one is absent or of another shape.
        """
        from safetensors.torch import load_file

        tensors = load_file(str(self.weights))
        for layer, out in LAYERS:
            for name, shape in ((f"{layer}.weight", (out, width)), (f"{layer}.bias", (out,))):
                there = tuple(tensors[name].shape) if name in tensors else "absent"
                if there != shape:
                    raise UserError(
                        f"{self.weights}: {name} is {there} and should be {shape}; is it the file for {self.backbone}?"
                    )
            width = out
        return {name: tensor.double() for name, tensor in tensors.items()}
