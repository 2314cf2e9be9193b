"""Small random pipelines of every shape that erasers must know."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from erasebench.concepts import Concept, ErasureTask

BOS, EOS = "<|startoftext|>", "<|endoftext|>"

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes of several threads each wait for one another
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A submission is judged on the same examples as the last one; people's machines look for new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def character_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer whose tokens are single characters, EOS as padding, 77 positions."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,'-"
    vocab = {token: i for i, token in enumerate([*letters, *(f"{letter}</w>" for letter in letters), BOS, EOS])}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def text_encoder(width: int, layers: int, projected: bool = False):
    tokenizer = character_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5_tokenizer() -> T5TokenizerFast:
    """A T5 tokenizer whose tokens are single characters and word starts; ``</s>`` ends a text, as in T5."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,'-"
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    return T5TokenizerFast(vocab=[*specials, *((letter, -3.0) for letter in letters)], extra_ids=0)


def t5_encoder(width: int) -> T5EncoderModel:
    config = T5Config(vocab_size=len(t5_tokenizer()), d_model=width, d_kv=8, d_ff=2 * width, num_layers=2, num_heads=2)
    return T5EncoderModel(config).eval()


def autoencoder(**more):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=[8, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=4,
        **more,
    ).eval()


def unet(width: int, **more):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=4,
        **more,
    ).eval()


def scheduler():
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def build_pipe(width: int = 24, layers: int = 2, **unet_options):
    """A random Stable Diffusion pipeline of SD 1.x or 2.x shape; the same weights every time."""
    from diffusers import StableDiffusionPipeline

    torch.manual_seed(0)
    pipe = StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(width, layers),
        tokenizer=character_tokenizer(),
        unet=unet(width, **unet_options),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def tiny_random_pipe():
    """SD 1.x shaped, random weights, text width 24."""
    return build_pipe()


@pytest.fixture(scope="session")
def tiny_random_sd2_pipe():
    """SD 2.x shaped: another text width, linear projections."""
    return build_pipe(width=20, layers=1, use_linear_projection=True)


@pytest.fixture(scope="session")
def tiny_random_sdxl_pipe():
    """SDXL shaped: two encoders side by side (16 + 12), extra text and size conditions."""
    from diffusers import StableDiffusionXLPipeline

    torch.manual_seed(0)
    pipe = StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(16, 2),
        text_encoder_2=text_encoder(12, 3, projected=True),
        tokenizer=character_tokenizer(),
        tokenizer_2=character_tokenizer(),
        unet=unet(
            28,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            transformer_layers_per_block=(2, 1),
            projection_class_embeddings_input_dim=12 + 6 * 4,
        ),
        scheduler=scheduler(),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def flow_scheduler(**options):
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**options)


def build_sd3_pipe(t5: bool = True):
    """SD 3 shaped, random weights: two CLIP encoders (16 + 12), T5 (36 wide, or none), a joint transformer."""
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(0)
    pipe = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=36,
            caption_projection_dim=16,
            pooled_projection_dim=16 + 12,
            pos_embed_max_size=16,
        ).eval(),
        scheduler=flow_scheduler(shift=3.0),
        vae=autoencoder(scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=text_encoder(16, 2, projected=True),
        tokenizer=character_tokenizer(),
        text_encoder_2=text_encoder(12, 3, projected=True),
        tokenizer_2=character_tokenizer(),
        text_encoder_3=t5_encoder(36) if t5 else None,
        tokenizer_3=t5_tokenizer() if t5 else None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def build_flux_pipe(guidance_embeds: bool = True):
    """FLUX shaped, random weights: CLIP (12) for the pooled text, T5 (20); with or without a guidance input."""
    from diffusers import FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    pipe = FluxPipeline(
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=20,
            pooled_projection_dim=12,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 4, 8),
        ).eval(),
        scheduler=flow_scheduler(shift=3.0, use_dynamic_shifting=True),
        vae=autoencoder(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=text_encoder(12, 2),
        tokenizer=character_tokenizer(),
        text_encoder_2=t5_encoder(20),
        tokenizer_2=t5_tokenizer(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def tiny_random_sd3_pipe():
    """SD 3 shaped, with T5."""
    return build_sd3_pipe()


@pytest.fixture(scope="session")
def tiny_random_flux_pipe():
    """FLUX.1-dev shaped: guidance is an input of the network."""
    return build_flux_pipe()


@pytest.fixture(scope="session")
def church_task():
    """One object with two phrases, two neighbours to retain."""
    church = Concept("church", "object", ("church", "small chapel"))
    return ErasureTask((church,), ("gas pump", "tench"))


@pytest.fixture(scope="session")
def artists_task():
    """Two artists with an anchor, and an artist and the empty text to retain."""
    return ErasureTask(
        (Concept("van gogh", "artist", anchor="art"), Concept("monet", "artist", anchor="art")),
        ("", "hokusai"),
    )


@pytest.fixture(scope="session")
def small_pipe():
    """The function that builds a fresh SD 1.x shaped pipeline, for tests that alter one."""
    return build_pipe


@pytest.fixture(scope="session")
def small_sd3_pipe():
    """The function that builds a fresh SD 3 shaped pipeline, with or without T5."""
    return build_sd3_pipe


@pytest.fixture(scope="session")
def small_flux_pipe():
    """The function that builds a fresh FLUX shaped pipeline, with or without a guidance input."""
    return build_flux_pipe


@pytest.fixture(scope="session")
def exact_pipe():
    """SD 1.x shaped, with a float64 text encoder: embeddings then do not depend on how texts were batched."""
    pipe = build_pipe()
    pipe.text_encoder.double()
    return pipe
