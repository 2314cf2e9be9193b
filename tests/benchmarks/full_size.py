"""A Stable Diffusion pipeline of the shape of SD 1.4 with random weights, saved as a folder.

    python tests/benchmarks/full_size.py FOLDER

Shapes, parameter counts, tokenizer and text encoder are those of the released model, so loading, encoding, editing and
sampling do their real work and take their real time; the images are noise. The vocabulary is the one that ships inside
the open_clip package. About 4 GB on disk in float32.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from importlib.resources import files
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

MERGES = 49152 - 256 - 2
"""Merges of CLIP's vocabulary; the file of open_clip holds more."""

UNET_PARAMETERS = 859_520_964
XL_UNET_PARAMETERS = 2_567_463_684


def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer (49408 tokens), from the vocabulary file of open_clip."""
    packed = files("open_clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    merges = gzip.decompress(packed).decode("utf-8").split("\n")[1 : MERGES + 1]
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(
            json.dumps({token: n for n, token in enumerate(tokens)}), encoding="utf-8"
        )
        Path(folder, "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
        # SD 1.x pads with the end token.
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77, pad_token="<|endoftext|>")


def text_encoder() -> CLIPTextModel:
    """The text tower of CLIP ViT-L/14, random weights."""
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        projection_dim=768, max_position_embeddings=77, hidden_act="quick_gelu",
        bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    )  # fmt: skip
    return CLIPTextModel(config)


def unet() -> UNet2DConditionModel:
    """The UNet of SD 1.x: the defaults of diffusers, 768 wide text, 8 heads; random weights."""
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def vae() -> AutoencoderKL:
    """The autoencoder of SD 1.x, random weights."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512,
    )  # fmt: skip


def pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """The whole pipeline; the same weights for the same seed."""
    torch.manual_seed(seed)
    return _assembled(vae=vae(), text_encoder=text_encoder(), unet=unet())


def editing_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """What an edit needs of it: tokenizer, text encoder and UNet; the autoencoder is left out."""
    torch.manual_seed(seed)
    return _assembled(vae=None, text_encoder=text_encoder(), unet=unet())


def small_editing_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """The same classes and the same tokenizer, but small: for trying out the benchmark in seconds."""
    torch.manual_seed(seed)
    return _assembled(vae=None, **_small_networks())


def small_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """:func:`small_editing_pipeline` with an autoencoder, for images of 16 pixels."""
    torch.manual_seed(seed)
    small = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, sample_size=16,
    )  # fmt: skip
    return _assembled(vae=small, **_small_networks())


def xl_pipeline(seed: int = 0) -> StableDiffusionXLPipeline:
    """A pipeline of the shape of SDXL 1.0 in bfloat16, built in it: 7 GB, where float32 takes 14."""
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.bfloat16)
    try:
        unet = UNet2DConditionModel(
            sample_size=128, block_out_channels=(320, 640, 1280), cross_attention_dim=2048,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20), use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        )  # fmt: skip
        second = CLIPTextConfig(
            vocab_size=49408, hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
            projection_dim=1280, max_position_embeddings=77, hidden_act="gelu",
            bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
        )  # fmt: skip
        encoders = text_encoder(), CLIPTextModelWithProjection(second)
        decoder = vae()
    finally:
        torch.set_default_dtype(torch.float32)
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    for network in (unet, *encoders, decoder):
        network.eval()
    return StableDiffusionXLPipeline(
        vae=decoder, text_encoder=encoders[0], text_encoder_2=encoders[1], tokenizer=tokenizer(), tokenizer_2=tokenizer(),
        unet=unet, scheduler=scheduler, add_watermarker=False,
    )  # fmt: skip


def _small_networks() -> dict[str, torch.nn.Module]:
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            projection_dim=64, max_position_embeddings=77, hidden_act="quick_gelu",
            bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
        )
    )  # fmt: skip
    network = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 96), layers_per_block=1, norm_num_groups=8, cross_attention_dim=64,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    return {"text_encoder": encoder, "unet": network}


def _assembled(**networks: torch.nn.Module | None) -> StableDiffusionPipeline:
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    for network in networks.values():
        if network is not None:
            network.eval()
    return StableDiffusionPipeline(
        **networks, tokenizer=tokenizer(), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", action="store_true", help="float16 on disk, half the size")
    options = parser.parse_args()
    pipe = pipeline()
    assert sum(weight.numel() for weight in pipe.unet.parameters()) == UNET_PARAMETERS
    (pipe.to(torch.float16) if options.half else pipe).save_pretrained(options.folder, safe_serialization=True)
    print(options.folder)


if __name__ == "__main__":
    main()
