"""Weights of somebody else's method, put on a base model: a UNet's (or transformer's) state dict, or a LoRA.

Safetensors only. A state dict may hold all weights of a network or those alone that a method changed (as ESD's and UCE's
released code saves them). Names are those of diffusers, with or without the prefixes that trainers leave in front; of a
LoRA also those of peft and of kohya's scripts. A name that no weight has is refused: a file that is put on in part
would be measured as something that it is not.

A LoRA is put on at its own full strength, for every prompt and step. A method that sets the strength by the prompt
(SPM's transport, Receler's masks) is not that LoRA.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from erasebench.config.choices import weights_name
from erasebench.errors import UserError, suggest
from erasebench.models.pipeline import Pipeline

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
"""Files that run code when they are read, so they are not."""

PREFIXES = ("module.", "_orig_mod.", "model.diffusion_model.", "diffusion_model.", "base_model.model.", "model.")
"""What stands before names that trainers, compilers and peft wrote."""

_LORA = re.compile(
    r"(?P<module>.+?)[._](?P<kind>lora_linear_layer|lora)[._](?P<side>A|B|down|up)(\.default)?(\.weight)?"
)
_PROCESSOR = re.compile(r"\.processor\.(to_[qkv]|to_out)$")
_OTHER_LAYOUT = re.compile(r"(^|[._])(input_blocks|output_blocks|middle_block|double_blocks|single_blocks)[._]")
_KOHYA = {"lora_unet_": "", "lora_transformer_": "", "lora_te_": "text_encoder.", "lora_te1_": "text_encoder.",
          "lora_te2_": "text_encoder_2.", "lora_te3_": "text_encoder_3."}  # fmt: skip
_UNREAD_LORA = ("use_rslora", "use_dora", "alpha_pattern")


@dataclass(frozen=True)
class ForeignWeights:
    """A file of weights, read and not yet put on anything.

    Attributes:
        file: its path.
        digest: SHA-256 of its bytes, 64 hex digits.
        tensors: by the name that the file gives them.
        alphas: of a LoRA whose file has them in its header: ``lora_alpha`` by component (empty: of all).
    """

    file: Path
    digest: str
    tensors: Mapping[str, Tensor]
    alphas: Mapping[str, float]

    @property
    def name(self) -> str:
        """What to call it in tables."""
        return weights_name(str(self.file))

    @property
    def is_lora(self) -> bool:
        """Whether it holds factors rather than weights."""
        return any(_LORA.fullmatch(key) for key in self.tensors)


def read_weights(path: str | Path) -> ForeignWeights:
    """Read a file of weights.

    Raises:
        UserError: no such file, a pickle (with the lines that convert it), not safetensors, an edit of erasebench, or
            a LoRA of a kind that is not read.
    """
    file = Path(path).expanduser()
    place = f"model.weights={path}"
    if not file.is_file():
        there = sorted(entry.name for entry in file.parent.glob("*.safetensors")) if file.parent.is_dir() else []
        raise UserError(f"{place}: no such file.{suggest(file.name, there)} Give a .safetensors of a UNet or a LoRA")
    if file.suffix.lower() in PICKLES:
        raise _pickled(file, place)
    start = b""
    try:
        with file.open("rb") as stream:
            start = stream.read(4)
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        if start.startswith((b"PK", b"\x80")):  # a zip, as torch.save writes, or a bare pickle
            raise _pickled(file, place) from error
        raise UserError(
            f"{place}: not a readable safetensors file ({error!s:.120}); fetch or write it again"
        ) from error
    if "erasebench" in header.get("format", ""):
        raise UserError(f"{place}: an edit of erasebench; put it on a model with: erasebench apply")
    if not tensors:
        raise UserError(f"{place}: no tensor in it; give a .safetensors of a UNet or a LoRA")
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and (tensor.dtype.itemsize < 2 or not torch.isfinite(tensor).all()):
            what = f"is {tensor.dtype}" if tensor.dtype.itemsize < 2 else "holds NaN or infinite numbers"
            raise UserError(f"{place}: {key} {what}; use the weights as they were trained, whole and not quantised")
    return ForeignWeights(file, digest, tensors, _alphas(header, place))


def _pickled(file: Path, place: str) -> UserError:
    to = f"{file.stem}{'' if file.suffix.lower() in PICKLES else '_converted'}.safetensors"
    return UserError(
        f"{place}: a pickle, which runs code when it is read, so it is not read here. Where you trust it, convert it:\n"
        "    import torch; from safetensors.torch import save_file\n"
        f"    save_file({{k: v.contiguous() for k, v in torch.load(open({file.name!r}, 'rb'), map_location='cpu', "
        f"weights_only=True).items()}}, {to!r})"
    )


@torch.no_grad()
def put_on(pipe: Pipeline, weights: ForeignWeights) -> str:
    """Put weights on a pipeline, which is on the CPU, for good; each is rounded once to the type of its place.

    Returns:
        What was put on, in a few words.

    Raises:
        UserError: names or shapes that do not fit; nothing was put on then.
    """
    places = dict(_places(pipe))
    changes = _lora_changes(weights, places) if weights.is_lora else _new_weights(weights, places)
    for name, value in changes.items():
        places[name].copy_(value)
    return f"{'a LoRA' if weights.is_lora else 'weights'} of {len(changes)} layers"


def _places(pipe: Pipeline) -> Iterator[tuple[str, Tensor]]:
    """Every weight of a pipeline by component and name."""
    for component, module in pipe.components.items():
        if isinstance(module, torch.nn.Module):
            yield from ((f"{component}.{name}", tensor) for name, tensor in module.state_dict().items())


def _new_weights(weights: ForeignWeights, places: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = {key: _place(key, places) for key in weights.tensors}
    _refuse_unfit(weights, [key for key, name in names.items() if not name])
    changes: dict[str, Tensor] = {}
    for key, name in names.items():
        tensor = weights.tensors[key]
        if name in changes:
            raise UserError(f"model.weights={weights.file}: {key} and another tensor are both {name}; keep one")
        if tensor.shape != places[name].shape or tensor.is_floating_point() != places[name].is_floating_point():
            raise _misfit(weights, key, tensor, name, places[name])
        changes[name] = tensor
    return changes


def _lora_changes(weights: ForeignWeights, places: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight plus ``alpha / rank * up @ down`` by name, computed in float64."""
    flat = {name.removesuffix(".weight").replace(".", "_"): name for name in places if name.endswith(".weight")}
    sides: dict[str, dict[str, str]] = {}
    unfit: list[str] = []
    for key in weights.tensors:
        match = _LORA.fullmatch(key)
        module, side = (match["module"], match["side"]) if match else (key.removesuffix(".alpha"), "alpha")
        name = _lora_place(module, places, flat) if match or key.endswith(".alpha") else ""
        if not name:
            unfit.append(key)
        else:
            sides.setdefault(name, {})[{"A": "down", "B": "up"}.get(side, side)] = key
    unfit += [key for keys in sides.values() if not keys.keys() >= {"down", "up"} for key in keys.values()]
    _refuse_unfit(weights, unfit)
    changes: dict[str, Tensor] = {}
    for name, keys in sides.items():
        down, up = (weights.tensors[keys[side]].double().flatten(1) for side in ("down", "up"))
        rank = down.shape[0]
        if (
            up.shape[1] != rank
            or up.shape[0] * down.shape[1] != places[name].numel()
            or up.shape[0] != len(places[name])
        ):
            raise _misfit(weights, keys["up"], weights.tensors[keys["up"]], name, places[name])
        alpha = weights.alphas.get(name.partition(".")[0], weights.alphas.get("", float(rank)))
        if "alpha" in keys:
            alpha = weights.tensors[keys["alpha"]].double().item()
        changes[name] = places[name].double() + alpha / rank * (up @ down).reshape(places[name].shape)
    return changes


def _place(key: str, places: Mapping[str, Tensor]) -> str:
    """The weight that a name of a state dict means; empty if there is none."""
    for name in _without_prefixes(key):
        for full in (name, *(f"{part}.{name}" for part in ("unet", "transformer", "text_encoder"))):
            # transformers moved the encoder of CLIP out of text_model; files have either name
            component, _, rest = full.partition(".")
            for spelling in (full, f"{component}.{rest.removeprefix('text_model.')}", f"{component}.text_model.{rest}"):
                if spelling in places:
                    return spelling
    return ""


def _lora_place(module: str, places: Mapping[str, Tensor], flat: Mapping[str, str]) -> str:
    """The weight that a LoRA layer's name means: with dots, of an attention processor, or kohya's without dots."""
    module = module.removesuffix("_lora")
    for prefix, component in _KOHYA.items():
        if module.startswith(prefix):
            rest = module.removeprefix(prefix)
            for text in (rest, rest.removeprefix("text_model_"), f"text_model_{rest}"):
                for part in [component] if component else ["unet.", "transformer."]:
                    if name := flat.get(f"{part.replace('.', '_')}{text}"):
                        return name
            return ""
    if processor := _PROCESSOR.search(module):  # attn1.processor.to_out_lora is for attn1.to_out.0
        module = module[: processor.start()] + "." + processor[1] + (".0" if processor[1] == "to_out" else "")
    return _place(f"{module}.weight", places)


def _without_prefixes(key: str) -> list[str]:
    """A name, and what is left of it as prefixes are taken off one by one."""
    names = [key]
    while prefix := next((prefix for prefix in PREFIXES if names[-1].startswith(prefix)), ""):
        names.append(names[-1].removeprefix(prefix))
    return names


def _refuse_unfit(weights: ForeignWeights, keys: list[str]) -> None:
    if not keys:
        return
    shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
    cure = "is it for another family of models? See model="
    if any(_OTHER_LAYOUT.search(key) for key in keys):
        cure = (
            "these are names of the original layout; convert the file to diffusers' (from_single_file, save_pretrained)"
        )
    raise UserError(
        f"model.weights={weights.file}: {len(keys)} of {len(weights.tensors)} tensors fit no weight of the model: {shown}; "
        f"{cure}"
    )


def _misfit(weights: ForeignWeights, key: str, tensor: Tensor, name: str, place: Tensor) -> UserError:
    return UserError(
        f"model.weights={weights.file}: {key} is {list(tensor.shape)} {tensor.dtype}, and {name} of the model "
        f"{list(place.shape)} {place.dtype}; the file was made for another model"
    )


def _alphas(header: Mapping[str, str], place: str) -> dict[str, float]:
    """``lora_alpha`` by component, which diffusers writes into a file's header.

    Raises:
        UserError: a header that cannot be read, or a LoRA that is more than two factors and one scale.
    """
    try:
        settings = json.loads(header.get("lora_adapter_metadata", "{}"))
        other = [key for key, value in settings.items() if key.rpartition(".")[2] in _UNREAD_LORA and value]
        alphas = {
            key.rpartition(".")[0]: float(value)
            for key, value in settings.items()
            if key.rpartition(".")[2] == "lora_alpha"
        }
        if not all(map(math.isfinite, alphas.values())):
            raise ValueError("lora_alpha is no finite number")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{place}: its header's lora_adapter_metadata cannot be read ({error!s:.120})") from error
    if other:
        raise UserError(
            f"{place}: a LoRA with {', '.join(other)}, which is not read; merge it into its UNet and give that UNet"
        )
    return alphas
