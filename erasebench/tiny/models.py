"""The parts of the embedded model, before training: a Stable Diffusion 1.x in small, made of the same classes.

Sizes: images 64 x 64, latents 16 x 8 x 8, text 77 x 128. All numbers that decide an architecture are here.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

TEXT_LENGTH = 77
"""Rows of a text embedding, as in SD 1.x."""


def build_vae(channels: tuple[int, ...] = (32, 32, 64, 128), latent_channels: int = 16) -> AutoencoderKL:
    """The autoencoder: 64 x 64 x 3 in [-1, 1] to 8 x 8 x 16 (as many numbers as 1/12 of the image)."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=64,
    )


def build_clip(tokenizer: CLIPTokenizer, width: int = 128, layers: int = 4) -> CLIPModel:
    """Text and image towers; the text tower becomes the pipeline's text encoder.

    `eos_token_id` is the tokenizer's, which is not 2, so that the text model pools at the first EOS.
    """
    shared = dict(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        projection_dim=width,
    )
    config = CLIPConfig(
        text_config=dict(
            vocab_size=len(tokenizer),
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **shared,
        ),
        vision_config=dict(image_size=64, patch_size=8, **shared),
        projection_dim=width,
        # Fused attention is several times slower backwards on CPUs at these sizes.
        attn_implementation="eager",
    )
    return CLIPModel(config)


def build_unet(
    channels: tuple[int, ...] = (96, 192), cross_attention_dim: int = 128, latent_channels: int = 16
) -> UNet2DConditionModel:
    """The denoiser: levels of 8 x 8 and 4 x 4, cross-attention in down, mid and up blocks."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * len(channels),
        up_block_types=("CrossAttnUpBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=4,  # diffusers reads this as the number of heads, as for SD 1.x
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """SD 1.x's noise schedule (scaled linear, 1000 steps, epsilon) with its DDIM sampler."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


class PlainAttention:
    """Attention written out, for training on CPUs: there the fused kernel's backward pass takes half of all time.

    Same result as diffusers' processors for the attention that SD 1.x has (no mask, no added norms). A processor holds
    no weights, so nothing of it is saved.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: None = None,
        temb: None = None,
    ) -> torch.Tensor:
        """[n, rows, width] (or [n, width, h, w] with the block's own group norm, as in a VAE) to the same shape."""
        shortcut, shape = hidden_states, hidden_states.shape
        if hidden_states.ndim == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            layer(rows).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, rows in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        weights = ((query * attn.scale) @ key.transpose(-1, -2)).softmax(-1)
        mixed = (weights.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        mixed = attn.to_out[1](attn.to_out[0](mixed))
        if len(shape) == 4:
            mixed = mixed.transpose(1, 2).reshape(shape)
        return (mixed + shortcut if attn.residual_connection else mixed) / attn.rescale_output_factor


def bf16(device: torch.device | str = "cpu") -> torch.autocast:
    """The mixed precision of all training here, on CPUs where they have instructions for it: there it is 1.5 to 2 times as
    fast as float32, and 10 to 16 times as slow where they have not."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=kind != "cpu" or cpu_has_bf16())


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 by instructions of its own (x86: AVX-512 or AMX; ARM: BF16 or SVE)."""
    return any(there is True for name, there in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
