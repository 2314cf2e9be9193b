"""Key and value weights are found in UNets of every Stable Diffusion shape, and nothing else is mistaken for one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from erasebench.errors import UserError
from erasebench.models.targets import key_value_weights, named_weight


@pytest.mark.parametrize(
    ("pipe_name", "layers", "width"),
    # down: 1 resnet block -> 1 attention; mid: 1; up: 2. SDXL has 2 transformer layers in some of them.
    [("tiny_random_pipe", 4, 24), ("tiny_random_sd2_pipe", 4, 20), ("tiny_random_sdxl_pipe", 7, 28)],
)
def test_keys_and_values_of_every_cross_attention(pipe_name, layers, width, request):
    pipe = request.getfixturevalue(pipe_name)
    weights = key_value_weights(pipe)
    assert len(weights) == 2 * layers
    assert all(weight.shape[1] == width for weight in weights.values())
    assert all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in weights)
    assert all(named_weight(pipe, name) is weight for name, weight in weights.items())


def test_the_text_reaches_the_unet_through_these_weights_only(tiny_random_pipe):
    unet = tiny_random_pipe.unet
    latents, time = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([10])
    texts = [torch.randn(1, 77, 24, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]
    weights = key_value_weights(tiny_random_pipe)
    originals = {name: weight.detach().clone() for name, weight in weights.items()}
    with torch.no_grad():
        before = [unet(latents, time, text).sample for text in texts]
        assert not torch.equal(*before)
        try:
            for weight in weights.values():
                weight.zero_()
            after = [unet(latents, time, text).sample for text in texts]
        finally:
            for name, weight in weights.items():
                weight.copy_(originals[name])
    assert torch.equal(*after)


def test_a_transformer_pipeline_is_refused_by_name():
    class StableDiffusion3Pipeline:
        transformer = torch.nn.Linear(2, 2)

    with pytest.raises(UserError, match=r"StableDiffusion3Pipeline \(Linear\).*no UNet"):
        key_value_weights(StableDiffusion3Pipeline())


def test_a_unet_without_cross_attention_is_refused():
    from diffusers import UNet2DModel

    plain = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
    )
    with pytest.raises(UserError, match="UNet2DModel: no cross-attention"):
        key_value_weights(SimpleNamespace(unet=plain))


def test_quantised_weights_are_refused():
    block = torch.nn.Module()
    block.attn2 = torch.nn.Module()
    for part in ("to_k", "to_v"):
        layer = torch.nn.Module()
        layer.weight = torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
        setattr(block.attn2, part, layer)
    with pytest.raises(UserError, match="attn2.to_k.weight.*quantisation"):
        key_value_weights(SimpleNamespace(unet=block))


def test_a_name_of_another_model_is_refused(tiny_random_pipe):
    for name in ("unet.nothing.weight", "nothing.weight"):
        with pytest.raises(UserError, match="made for another model"):
            named_weight(tiny_random_pipe, name)
