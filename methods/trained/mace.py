"""MACE, all of it (Lu et al., CVPR 2024): closed-form refinement, one LoRA a concept against attention to it, fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import interpolate

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.combine import combine
from erasebench.edits.eraser import Edit, Work
from erasebench.errors import UserError
from erasebench.methods.adapters.beside import beside
from erasebench.methods.closed_form.fusion import fuse, template_rows
from erasebench.methods.closed_form.linear import check_positive
from erasebench.methods.closed_form.mace import MaceCfr
from erasebench.methods.trained.attention import layer_shape, recorded_attention
from erasebench.methods.trained.examples import example_images, template, token_columns
from erasebench.methods.trained.latents import encoded, noising
from erasebench.methods.trained.low_rank import additions, layers_in, new_adapters
from erasebench.methods.trained.segment import Segmenter
from erasebench.methods.trained.training import Optimization, TrainedEraser, below, generator, own_work, totals, train
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser, named_weight, text_inputs

OPTIMIZATION = Optimization(torch.optim.AdamW, {"weight_decay": 0.01}, clip=1.0)

SEGMENTED = ("object", "celebrity")
"""Kinds of concepts that are somewhere in an image, as the release has it; a style is everywhere."""


@dataclass(frozen=True, kw_only=True)
class Mace(TrainedEraser):
    """MACE in its three stages, on the keys and values of cross-attention.

    1. :class:`~erasebench.methods.closed_form.mace.MaceCfr` for all concepts at once.
    2. For each concept a LoRA of rank one on the refined network. A step noises an image of the concept to timestep t
       and evaluates the network for ``a photo of the X``; the loss is the sum, over the cross-attention layers, of the
       Frobenius norm of the attention to X's own tokens. t is drawn in proportion to
       ``sigmoid(0.05 (t - 200)) - sigmoid(0.05 (t - 400))``, for unsafe content evenly.
    3. :func:`~erasebench.methods.closed_form.fusion.fuse`: the change that does on every concept's sentences what its
       LoRA does, with the weights and the cache of stage 1.

    The release's settings: lr 1e-5 for objects, 1e-4 for celebrities and artists, 50 steps; unsafe content 1e-5 and 120.

    The release looks at the pixels of objects and celebrities alone, which Grounding DINO and SAM segment. Here ``segment``
    names a CLIPSeg that does it; without one, for other kinds, and where an image shows nothing of the concept, the loss
    looks at the whole image, and the notes say so.

    Ours: images are made by DDIM, not DPM-Solver++, and scaled as the VAE expects (the release normalises them by ImageNet's
    mean and deviation). All phrases of a concept are shown in turn where stage 1 edits them. The values of the last layer have
    no LoRA: no attention depends on them.

    Attributes:
        refinement: stage 1, and the sentences, ``lam`` and cache of stage 3.
        images: of each concept, by the unedited model.
        image_steps, guidance: of their sampling.
        pooled: attention to the end of the text and the padding counts too (``use_pooler``).
        segment: folder or Hub id of a CLIPSeg in safetensors, e.g. ``CIDAS/clipseg-rd64``; ``None`` is the whole image.
        segment_revision: commit of a Hub id.
        segment_threshold: share from which a pixel is the concept's, above 0 and below 1.

    Raises:
        UserError: an option out of range.
    """

    name: ClassVar[str] = "mace"
    version: ClassVar[str] = "2"
    describe: ClassVar[str] = "MACE: refinement, a LoRA a concept against attention to it, fusion (CVPR 2024)"

    refinement: MaceCfr = field(default_factory=MaceCfr)
    iterations: int = 50
    lr: float = 1e-5
    images: int = 8
    image_steps: int = 30
    guidance: float = 7.5
    pooled: bool = True
    segment: str | None = None
    segment_revision: str | None = None
    segment_threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_whole("images", "image_steps")
        check_positive(self.name, guidance=self.guidance)
        if not 0 < self.segment_threshold < 1:
            raise UserError(f"mace: segment_threshold is {self.segment_threshold!r}; it must be between 0 and 1")
        if self.save_memory:
            raise UserError("mace: its loss reads the attention of every layer; use save_memory=false")

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """As of every eraser, with the key of stage 1, which knows the content of its files, and that of the segmenter's.

        Raises:
            UserError: the segmenter is not here and cannot be fetched.
        """
        deciding = self.settings | {"refinement": self.refinement.key(model_identity, task)}
        if self.refinement.squared_scale:  # such edits once took the square in stage 3, too
            deciding |= {"fusion": "the scale once"}
        if self._segmenter:
            deciding |= {"segment": self._segmenter.sha256, "segment_revision": None}
        return self.key_of(model_identity, task, deciding)

    @cached_property
    def _segmenter(self) -> Segmenter | None:
        return Segmenter(self.segment, self.segment_revision, self.name) if self.segment else None

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """As of all trainings, and what stage 1 checks; a phrase whose tokens cannot be told from the sentence's; and a
        segmenter that cannot be loaded."""
        super().check(pipe, task)
        if self._segmenter:
            self._segmenter.load()
        self.refinement.check(pipe, task)
        for target in task.targets:
            self.columns(pipe, target)

    def columns(self, pipe: Pipeline, target: Concept) -> dict[str, Tensor]:
        """The sentence of each phrase that is shown, and the positions in it that are to be looked away from."""
        sentence = template(target.kind)
        phrases = target.phrases if self.refinement.phrases else (target.name,)
        return {
            sentence.replace("{}", phrase): token_columns(pipe, sentence, phrase, self.pooled) for phrase in phrases
        }

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Refines, trains a LoRA a concept (each from its last checkpoint if there is one), and fuses."""
        assert work is not None
        refined, notes = self.refinement.changes(pipe, task)
        student = self.student(denoiser(pipe))
        for name, change in refined.items():
            change.add_to(student.get_parameter(name.removeprefix("unet.")).detach())
        part = text_inputs(pipe, self.refinement.where)[0]
        sentences, loras, trained = self.refinement.sentences(task.kind), [], {}
        for number, target in enumerate(task.targets):
            lora, trained[target.name] = self.lora(pipe, student, target, own_work(work, number, len(task.targets)))
            loras.append(lora)
        # As released, the square of the scale is stage 1's alone.
        system, _ = replace(self.refinement, squared_scale=False).system(part, task)
        rows = [template_rows(part, target.name, sentences) for target in task.targets]
        weights = {name: named_weight(pipe, name).detach().cpu().double() for name in refined}
        fused = fuse(
            {name: weight + refined[name].of(weight) for name, weight in weights.items()}, loras, rows, **system
        )
        changes = combine([refined, fused], "sequence", pipe)
        first, warnings = {key: value for key, value in notes.items() if key != "warnings"}, notes.get("warnings", [])
        about = {
            **totals(trained),
            "refinement": first,
            "loras": trained,
            "mask": Path(self.segment).name if self.segment else "the whole image (ours)",
        }
        return Edit(changes, {"method": self.name, **about, **({"warnings": warnings} if warnings else {})})

    def lora(
        self, pipe: Pipeline, student: Any, target: Concept, work: Work
    ) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Any]]:
        """Stage 2 for one concept.

        Args:
            student: the refined network.

        Returns:
            Weight name to ``(left [out, 1], right [1, in])``, and notes of the training.
        """
        prompts, columns = zip(*self.columns(pipe, target).items(), strict=True)
        pictures = example_images(work, prompts, self.images, self.image_steps, self.guidance)
        latents, masks = encoded(pipe, pictures), self.masks(pictures, target, work.device)
        contexts = encode_prompts(pipe, prompts)[0].float()
        scheduler = noising(pipe.scheduler.config)
        chances = timestep_chances(scheduler.config.num_train_timesteps, even=target.kind == "unsafe")
        parameters = new_adapters(student, layers_of(student, contexts[:1]), generator(work, self.draws), normal=True)

        def loss_of(step: int) -> Tensor:
            numbers = generator(work, step)
            image = below(0, self.images, numbers)
            timestep = torch.multinomial(chances, 1, generator=numbers).to(student.device)
            latent = latents[image : image + 1]
            noise = torch.randn(latent.shape, generator=numbers).to(latent)
            chosen = image % len(prompts)
            maps.clear()
            student(scheduler.add_noise(latent, noise, timestep), timestep, contexts[chosen : chosen + 1])
            return attention_loss(maps, columns[chosen].to(student.device), masks[image])

        with beside(student, additions(parameters)), recorded_attention(student) as maps:
            notes = train(self, work, parameters, loss_of, OPTIMIZATION)
        values = {name: parameter.detach().cpu().double() for name, parameter in parameters.items()}
        lora = {f"unet.{name}.weight": (values[f"up.{name}"].T, values[f"down.{name}"]) for name in layers_in(values)}
        return lora, notes | {"images_without_mask": sum(mask is None for mask in masks)}

    def masks(self, pictures: Sequence[Image], target: Concept, device: str) -> list[Tensor | None]:
        """Where each picture shows a concept, [height, width] of 0 and 1; ``None`` is everywhere."""
        if self._segmenter is None or target.kind not in SEGMENTED:
            return [None] * len(pictures)
        phrases = target.phrases if self.refinement.phrases else (target.name,)
        texts = [phrases[number % len(phrases)] for number in range(len(pictures))]
        masks = self._segmenter.masks(pictures, texts, self.segment_threshold, device)
        return [mask if mask.any() else None for mask in masks]


def timestep_chances(total: int, even: bool) -> Tensor:
    """How often each training timestep is drawn, [total], unnormalised: around 200 to 400 of 1000, or evenly."""
    t = torch.arange(total, dtype=torch.float64) * 1000 / total
    return torch.ones(total) if even else torch.sigmoid(0.05 * (t - 200)) - torch.sigmoid(0.05 * (t - 400))


def layers_of(student: Any, context: Tensor) -> list[str]:
    """The layers that get a LoRA: keys and values of cross-attention, but the values of what is evaluated last."""
    size = student.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    latents = torch.zeros(1, student.config.in_channels, height, width).to(context)
    with torch.no_grad(), recorded_attention(student) as maps:
        student(latents, torch.tensor([0], device=student.device), context)
        order = list(maps)
    return [f"{layer}.{kind}" for layer in order for kind in ("to_k", "to_v")][:-1]


def attention_loss(maps: Mapping[str, Tensor], columns: Tensor, mask: Tensor | None = None) -> Tensor:
    """The sum over layers of the Frobenius norm of attention to some positions of the text, from inside a mask.

    Args:
        maps: by layer, [heads, pixels, positions].
        columns: the positions.
        mask: [height, width] of 0 and 1, in the size of the image or its latents; each layer takes the nearest pixels of
            it. ``None`` is everywhere.
    """
    total = []
    for one in maps.values():
        looked = one[:, :, columns]
        if mask is not None:
            inside = interpolate(mask[None, None], layer_shape(one.shape[1], mask.shape)).flatten() > 0.5
            looked = looked[:, inside.to(one.device)]
        total.append(torch.linalg.vector_norm(looked))
    return torch.stack(total).sum()
