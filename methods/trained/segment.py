"""Where in images a text is: masks by CLIPSeg (Lueddecke and Ecker, CVPR 2022)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import errors as hub_errors
from huggingface_hub import snapshot_download
from PIL.Image import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

from erasebench.errors import UserError
from erasebench.files import opened

NEEDED = ("config.json", "model.safetensors", "tokenizer_config.json")
"""Without these a folder has no CLIPSeg that is loaded here; how its processor is saved differs between versions."""

PATTERNS = ("*.json", "*.txt", "model.safetensors")
"""What is fetched of a repository; no pickles."""


@dataclass(frozen=True)
class Segmenter:
    """A CLIPSeg in safetensors.

    Attributes:
        source: a folder, or a Hub id such as ``CIDAS/clipseg-rd64``.
        revision: commit of a Hub id.
        who: names it in messages.
    """

    source: str
    revision: str | None
    who: str

    @cached_property
    def folder(self) -> Path:
        """Where its files are; they are downloaded first if it is on the Hub and not in its cache.

        Raises:
            UserError: a folder that lacks a file, no such folder or Hub id, or the Hub cannot be reached.
        """
        folder = Path(self.source).expanduser()
        if not folder.is_dir():
            if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", self.source):
                raise UserError(f"{self.who}: segment={self.source}: no such folder, and no Hub id (owner/name)")
            try:
                folder = Path(snapshot_download(self.source, revision=self.revision, allow_patterns=list(PATTERNS)))
            except (hub_errors.HfHubHTTPError, hub_errors.HFValidationError, OSError) as error:
                raise UserError(
                    f"{self.who}: {self.source} is not in the Hub's cache and could not be fetched "
                    f"({type(error).__name__}: {str(error)[:200]}). With a network, run: erasebench prefetch method={self.who} "
                    f"method.segment={self.source}; or give method.segment=FOLDER, or null for the whole image"
                ) from error
        for name in NEEDED:
            if not (folder / name).is_file():
                raise UserError(
                    f"{self.who}: segment={self.source}: {folder} has no {name}; give a CLIPSeg in safetensors, e.g. "
                    "method.segment=CIDAS/clipseg-rd64"
                )
        return folder

    @cached_property
    def sha256(self) -> str:
        """Of its files, by name."""
        total = hashlib.sha256()
        for path in sorted(path for pattern in PATTERNS for path in self.folder.glob(pattern)):
            total.update(path.name.encode())
            with opened(path) as file:
                while part := file.read(1 << 24):
                    total.update(part)
        return total.hexdigest()

    def load(self) -> tuple[Any, Any]:
        """The network in float32 on the CPU, and what makes its inputs.

        Raises:
            UserError: files of another kind, or weights that are in no file.
        """
        try:
            network, report = CLIPSegForImageSegmentation.from_pretrained(
                self.folder, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
            processor = CLIPSegProcessor.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
            raise UserError(f"{self.who}: {self.folder}: no CLIPSeg ({str(error)[:200]})") from error
        if report["missing_keys"]:
            raise UserError(
                f"{self.who}: {self.folder}: no CLIPSeg: {sorted(report['missing_keys'])[0]} is in no file of it, and would "
                "be filled with random numbers"
            )
        return network.eval(), processor

    @torch.no_grad()
    def masks(self, images: Sequence[Image], texts: Sequence[str], threshold: float, device: str) -> Tensor:
        """Where each image shows its text, by a share of at least ``threshold``.

        Args:
            images: RGB, of one size.
            texts: one for each.
            threshold: above 0, below 1.
            device: where the network is evaluated.

        Returns:
            [n, height, width] of 0 and 1, float32, on the CPU, in the images' size.
        """
        network, processor = self.load()
        network.to(device)
        width, height = images[0].size
        parts = []
        for image, text in zip(images, texts, strict=True):
            inputs = processor(text=[text], images=[image.convert("RGB")], padding=True, return_tensors="pt")
            shares = torch.sigmoid(network(**inputs.to(device)).logits.float())
            whole = interpolate(shares.reshape(1, 1, *shares.shape[-2:]), (height, width), mode="bilinear")
            parts.append((whole[0, 0] >= threshold).float().cpu())
        return torch.stack(parts)
