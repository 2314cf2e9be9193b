"""What looks at an image and answers in words: a vision-language model of transformers, or the embedded model's judge.

A model is a folder or a repository of the Hugging Face Hub with safetensors. It must be one that transformers itself can
build: code that lies beside weights is never run.
"""

from __future__ import annotations

import functools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from erasebench.errors import UserError
from erasebench.metrics import _clip, _embedded
from erasebench.metrics._common import commit_of, device, short_hash, slug, text_hash
from erasebench.tiny.judge import AND, NOTHING_SEEN
from erasebench.tiny.names import HEAD_OF_KIND, HEADS

EMBEDDED = "embedded"

WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""The files of a repository that are fetched: settings, vocabularies, weights."""

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
"""Any of them is a tokenizer's vocabulary."""

LONGEST_ANSWER = 256
"""Tokens that a model may say."""

YES, NO, UNSURE = "yes", "no", "idk"


class Viewer(ABC):
    """What looks at images."""

    @abstractmethod
    def seen(self, images: Sequence[Image.Image], names: Sequence[str], kinds: Sequence[str]) -> list[str]:
        """Whether each image shows a concept: ``yes``, ``no``, ``idk``, or nothing where that was not said.

        Args:
            images: RGB.
            names: of the concepts, one an image.
            kinds: of the concepts: a style is asked for otherwise than a thing.
        """

    @abstractmethod
    def captions(self, images: Sequence[Image.Image]) -> list[str]:
        """What each image shows, in a sentence."""


def question(name: str, kind: str) -> str:
    """What a model is asked about a concept: EraseEval's two sentences (eval.py), which HUB asks in more words."""
    if kind == "artist":
        return f"Is the style of this image is {name}? Answer Yes or No."
    return f"Is {name} in this image? Answer Yes or No."


CAPTION = "Describe in one sentence what the image shows, and in which style. Say nothing that is not in it."
"""What a model is asked for a caption; our wording."""


def verdict(answer: str) -> str:
    """The last of the words yes, no and idk that an answer holds, in any case; nothing where there is none.

    Whole words: the release of EraseEval looks for the letters ``no``, which "know" has, too.
    """
    words = re.findall(rf"\b({YES}|{NO}|{UNSURE})\b", answer.casefold())
    return words[-1] if words else ""


class EmbeddedViewer(Viewer):
    """The embedded world's judge, which knows the truth of what it was trained on."""

    def __init__(self, device_name: str) -> None:
        self._device = device_name

    def seen(self, images: Sequence[Image.Image], names: Sequence[str], kinds: Sequence[str]) -> list[str]:
        answers = self._answers(images)
        words = []
        for seen, name, kind in zip(answers, names, kinds, strict=True):
            head = HEAD_OF_KIND.get(kind, "")
            in_world = name.casefold() in {entry.casefold() for entry in HEADS.get(head, ())}
            answer = seen[head] if in_world else None
            words.append("" if answer is None else YES if name.casefold() in answer.casefold().split(AND) else NO)
        return words

    def captions(self, images: Sequence[Image.Image]) -> list[str]:
        named = [[answer.replace(AND, ", ") for answer in seen.values() if answer] for seen in self._answers(images)]
        return [f"a picture of {', '.join(names)}" if names else "a picture" for names in named]

    def _answers(self, images: Sequence[Image.Image]) -> list[dict[str, str | None]]:
        """By head, what the judge sees in each image: empty for none of its classes, ``None`` where it broke down."""
        answers = _embedded.judge_answers(images, _embedded.JUDGE_FOLDER, self._device, 256)
        named = {"": None, NOTHING_SEEN: ""}
        return [{head: named.get(answers[head][i], answers[head][i]) for head in HEADS} for i in range(len(images))]


class LanguageModel(Viewer):
    """A vision-language model, asked one image at a time, answering with its likeliest words.

    Args:
        folder: with the model and its processor.
        on: where it runs, in bfloat16 on a GPU.
    """

    def __init__(self, folder: Path, on: torch.device) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        dtype = torch.bfloat16 if on.type == "cuda" else torch.float32
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self._processor = AutoProcessor.from_pretrained(folder, **local)
        model = AutoModelForImageTextToText.from_pretrained(folder, use_safetensors=True, dtype=dtype, **local)
        self._model = model.eval().requires_grad_(False).to(on)
        self._dtype, self._on = dtype, on

    def seen(self, images: Sequence[Image.Image], names: Sequence[str], kinds: Sequence[str]) -> list[str]:
        asked = [question(name, kind) for name, kind in zip(names, kinds, strict=True)]
        return [verdict(self.answer(image, text)) for image, text in zip(images, asked, strict=True)]

    def captions(self, images: Sequence[Image.Image]) -> list[str]:
        return [" ".join(self.answer(image, CAPTION).split()) for image in images]

    @torch.inference_mode()
    def answer(self, image: Image.Image, text: str) -> str:
        """What it says to a question about an image."""
        inputs = self._inputs(image.convert("RGB"), text).to(self._on, self._dtype)
        said = self._model.generate(**inputs, max_new_tokens=LONGEST_ANSWER, do_sample=False)
        new = said[0][inputs["input_ids"].shape[-1] :]
        return str(self._processor.batch_decode([new], skip_special_tokens=True)[0]).strip()

    def _inputs(self, image: Image.Image, text: str) -> Any:
        """A question in the model's own form: a turn of a conversation, or, where it has none, the image before the text."""
        if getattr(self._processor, "chat_template", None):
            turn = {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}
            return self._processor.apply_chat_template(
                [turn], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        token = getattr(self._processor, "image_token", "<image>")
        return self._processor(text=[f"{token}{text}"], images=[image], return_tensors="pt")


def place_of(source: str, revision: str | None) -> Path | None:
    """The folder of a model: a path as it is, else that of its repository in the cache; ``None`` if neither is here."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=True, allow_patterns=list(WANTED)))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def folder_of(source: str, revision: str | None) -> Path:
    """:func:`place_of` where there must be one.

    Raises:
        UserError: it is not on this machine.
    """
    folder = place_of(source, revision)
    if folder is None:
        raise UserError(f"{source} is not on this machine")
    return folder


def shown_source(source: str) -> str:
    """A model as descriptions name it: a folder without the path to it."""
    return Path(source).name if Path(source).is_absolute() or Path(source).is_dir() else source


def unavailable(source: str, revision: str | None, option: str, viewer: bool = False) -> str | None:
    """Why a model cannot be used here, with the command that gets it; ``None`` if it can. Never downloads.

    Args:
        source: folder or Hub id.
        revision: of the latter.
        option: the setting that names it, ``metric.eraseeval_named.viewer``.
        viewer: it has to answer in words about images, and not only to be a network that transformers has.
    """
    folder, metric = place_of(source, revision), option.split(".")[1]
    if folder is None or not (folder / "config.json").is_file():
        return (
            f"{source} is not on this machine; where there is a network, run: `erasebench prefetch` metric=[{metric}] "
            f"{option}={source} (or set {option}=FOLDER)"
        )
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        lacking = _lacking(folder, viewer)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        return f"{source}: the settings in {folder} cannot be read ({error!s:.100}); get it again"
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if viewer and kind in CONFIG_MAPPING and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return (
            f"{source} (model_type {kind!r}) does not answer questions about images; set {option} to a model that does"
        )
    if kind not in CONFIG_MAPPING:
        return (
            f"{source} (model_type {kind!r}) is built by code of its own repository, which is never "
            f"run; set {option} to a model that transformers has, e.g. Qwen/Qwen2.5-VL-7B-Instruct"
        )
    return (
        f"{source}: {', '.join(lacking)} not in {folder}; get it whole: `erasebench prefetch` metric=[{metric}]"
        if lacking
        else None
    )


def _lacking(folder: Path, viewer: bool) -> list[str]:
    """The files of weights that a model's folder should have and has not, and what a viewer reads questions with."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        wanted = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        wanted = ["model.safetensors"]
    lacking = [name for name in wanted if not (folder / name).is_file()]
    reads = not viewer or any((folder / name).is_file() for name in TOKENIZERS)
    return lacking if reads else [*lacking, "the tokenizer's files"]


def fetch(source: str, revision: str | None, wanted: Sequence[str] = WANTED) -> None:
    """Download a model into the Hugging Face cache: safetensors and settings, no pickle and no code; or some of its files."""
    if not Path(source).is_dir():
        from huggingface_hub import snapshot_download

        snapshot_download(source, revision=revision, allow_patterns=list(wanted))


def viewer_version(source: str, revision: str | None) -> str:
    """What decides a model's answers, for a metric's version: its name and commit, or what a folder holds.

    ``folder-absent`` for what is neither a folder here nor the name of a repository.
    """
    from huggingface_hub.errors import HFValidationError

    if not Path(source).is_dir():
        try:
            return f"{slug(source)}-{commit_of(source, 'config.json', revision)}"
        except HFValidationError:
            return "folder-absent"
    files = sorted(file for pattern in WANTED for file in Path(source).glob(pattern))
    content = " ".join(f"{file.name} {short_hash(file)}" for file in files)
    return f"folder-{text_hash(content)}"


@functools.lru_cache(maxsize=1)
def load_viewer(source: str, revision: str | None, device_name: str) -> Viewer:
    """The viewer of a name, loaded once.

    Raises:
        UserError: it is not on this machine.
    """
    if source == EMBEDDED:
        return EmbeddedViewer(device_name)
    return LanguageModel(folder_of(source, revision), device(device_name))


@functools.lru_cache(maxsize=1)
def _encoder(folder: Path, on: torch.device) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    model = AutoModel.from_pretrained(folder, use_safetensors=True, **local).float().eval().to(on)
    return AutoTokenizer.from_pretrained(folder, **local), model


@torch.inference_mode()
def encode(texts: Sequence[str], source: str, revision: str | None, device_name: str) -> np.ndarray:
    """Unit vectors of texts, float32 ``[n, d]``: the mean over the tokens of an encoder, or the embedded model's CLIP.

    Raises:
        UserError: the encoder is not on this machine.
    """
    if source == EMBEDDED:
        return _clip.load_clip(_clip.EMBEDDED, None, device_name, 64).text(list(texts)).numpy()
    tokenizer, model = _encoder(folder_of(source, revision), device(device_name))
    rows = []
    for text in texts:  # one by one, as released: no padding is in the mean
        tokens = tokenizer(text, return_tensors="pt", truncation=True).to(model.device)
        hidden = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])[0][0]
        rows.append(torch.nn.functional.normalize(hidden.mean(dim=0), dim=0).cpu().numpy())
    return np.stack(rows)
