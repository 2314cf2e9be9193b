"""Somebody else's weights on a base model: the right numbers at the right places, and what does not fit is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from erasebench.errors import UserError
from erasebench.models.load import load_model
from erasebench.models.marks import edits_on
from erasebench.models.weights import PICKLES, put_on, read_weights

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV = "conv_in"


@pytest.fixture
def pipe(small_pipe: Callable[[], Any]) -> Any:
    return small_pipe()


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def saved(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    path = folder / "theirs.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata=metadata)
    return path


def changed(pipe: Any, before: dict[str, Tensor]) -> set[str]:
    return {name for name, weight in pipe.unet.state_dict().items() if not torch.equal(weight, before[name])}


def copies(module: Any) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in module.state_dict().items()}


# State dicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "unet.", "module.", "model.diffusion_model.", "_orig_mod.module."])
def test_a_state_dict_is_put_where_its_names_say(pipe: Any, tmp_path: Path, prefix: str) -> None:
    before = copies(pipe.unet)
    theirs = {name: rows(*weight.shape) for name, weight in before.items()}
    said = put_on(pipe, read_weights(saved(tmp_path, {prefix + name: weight for name, weight in theirs.items()})))
    assert said == f"weights of {len(before)} layers"
    assert all(torch.equal(weight, theirs[name]) for name, weight in pipe.unet.state_dict().items())


def test_a_state_dict_of_the_changed_weights_alone_leaves_the_others(pipe: Any, tmp_path: Path) -> None:
    """ESD-x and UCE save what they changed and nothing else."""
    before = copies(pipe.unet)
    theirs = rows(*before[f"{LAYER}.weight"].shape).half()
    put_on(pipe, read_weights(saved(tmp_path, {f"{LAYER}.weight": theirs})))
    assert changed(pipe, before) == {f"{LAYER}.weight"}
    assert torch.equal(pipe.unet.get_parameter(f"{LAYER}.weight"), theirs.float())


def test_a_text_encoder_is_put_on_too(pipe: Any, tmp_path: Path) -> None:
    """AdvUnlearn changes the text encoder; older releases of transformers name its weights otherwise."""
    name = next(name for name in pipe.text_encoder.state_dict() if name.endswith("q_proj.weight"))
    theirs = rows(*pipe.text_encoder.get_parameter(name).shape)
    for spelling in (name, f"text_encoder.{name}", f"text_model.{name.removeprefix('text_model.')}"):
        pipe.text_encoder.get_parameter(name).data.zero_()
        put_on(pipe, read_weights(saved(tmp_path, {spelling: theirs})))
        assert torch.equal(pipe.text_encoder.get_parameter(name), theirs)


# LoRA ----------------------------------------------------------------------------------------------------------------


def factors(pipe: Any, module: str, rank: int = 2) -> tuple[Tensor, Tensor]:
    shape = pipe.unet.get_parameter(f"{module}.weight").shape
    return rows(rank, *shape[1:], seed=1), rows(shape[0], rank, *[1] * (len(shape) - 2), seed=2)


def product(down: Tensor, up: Tensor) -> Tensor:
    return (up.double().flatten(1) @ down.double().flatten(1)).reshape(up.shape[0], *down.shape[1:])


SPELLINGS: dict[str, Callable[[str, Tensor, Tensor], dict[str, Tensor]]] = {
    "diffusers": lambda m, a, b: {f"unet.{m}.lora_A.weight": a, f"unet.{m}.lora_B.weight": b},
    "peft": lambda m, a, b: {
        f"base_model.model.{m}.lora_A.default.weight": a,
        f"base_model.model.{m}.lora_B.default.weight": b,
    },
    "bare": lambda m, a, b: {f"{m}.lora_A.weight": a, f"{m}.lora_B.weight": b},
    "diffusers, before peft": lambda m, a, b: {f"unet.{m}.lora.down.weight": a, f"unet.{m}.lora.up.weight": b},
    "kohya": lambda m, a, b: {
        f"lora_unet_{m.replace('.', '_')}.lora_down.weight": a,
        f"lora_unet_{m.replace('.', '_')}.lora_up.weight": b,
    },
}


@pytest.mark.parametrize("module", [LAYER, OUT, CONV])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_lora_adds_the_product_of_its_factors(pipe: Any, tmp_path: Path, spelling: str, module: str) -> None:
    before = copies(pipe.unet)
    down, up = factors(pipe, module)
    said = put_on(pipe, read_weights(saved(tmp_path, SPELLINGS[spelling](module, down, up))))
    assert said == "a LoRA of 1 layers" and changed(pipe, before) == {f"{module}.weight"}
    expected = (before[f"{module}.weight"].double() + product(down, up)).float()
    assert torch.equal(pipe.unet.get_parameter(f"{module}.weight"), expected)


def test_a_lora_of_attention_processors_is_read(pipe: Any, tmp_path: Path) -> None:
    """The names of diffusers 0.14: to_out stands for to_out.0."""
    before = copies(pipe.unet)
    down, up = factors(pipe, OUT)
    name = OUT.replace(".to_out.0", ".processor.to_out_lora")
    put_on(pipe, read_weights(saved(tmp_path, {f"{name}.down.weight": down, f"{name}.up.weight": up})))
    expected = (before[f"{OUT}.weight"].double() + product(down, up)).float()
    assert torch.equal(pipe.unet.get_parameter(f"{OUT}.weight"), expected)


@pytest.mark.parametrize(
    ("extra", "header"),
    [
        ({f"unet.{LAYER}.alpha": torch.tensor(1.0)}, None),
        ({}, {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 1, "unet.r": 2, "unet.use_dora": False})}),
        ({}, {"lora_adapter_metadata": json.dumps({"lora_alpha": 1.0, "r": 2, "alpha_pattern": {}})}),
    ],
)
def test_alpha_over_rank_scales_a_lora(
    pipe: Any, tmp_path: Path, extra: dict[str, Tensor], header: dict[str, str] | None
) -> None:
    before = copies(pipe.unet)
    down, up = factors(pipe, LAYER)
    put_on(pipe, read_weights(saved(tmp_path, SPELLINGS["diffusers"](LAYER, down, up) | extra, header)))
    expected = (before[f"{LAYER}.weight"].double() + 0.5 * product(down, up)).float()
    assert torch.equal(pipe.unet.get_parameter(f"{LAYER}.weight"), expected)


def test_a_lora_of_the_text_encoder_is_read(pipe: Any, tmp_path: Path) -> None:
    name = next(name for name in pipe.text_encoder.state_dict() if name.endswith("q_proj.weight"))
    weight = pipe.text_encoder.get_parameter(name).detach().clone()
    down, up = rows(2, weight.shape[1]), rows(weight.shape[0], 2)
    module = f"text_encoder.text_model.{name.removeprefix('text_model.').removesuffix('.weight')}"
    kohya = module.replace("text_encoder.", "lora_te_").replace(".", "_")
    for keys in (
        {f"{module}.lora_linear_layer.down.weight": down, f"{module}.lora_linear_layer.up.weight": up},
        {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up},
        {f"{kohya}.lora_down.weight": down, f"{kohya}.lora_up.weight": up},
    ):
        pipe.text_encoder.get_parameter(name).data.copy_(weight)
        put_on(pipe, read_weights(saved(tmp_path, keys)))
        expected = (weight.double() + product(down, up)).float()
        assert torch.equal(pipe.text_encoder.get_parameter(name), expected)


@pytest.mark.parametrize("alpha", [None, 1.0])
def test_a_lora_that_peft_can_fuse_is_fused_alike(pipe: Any, tmp_path: Path, alpha: float | None) -> None:
    pytest.importorskip("peft")
    down, up = factors(pipe, LAYER)
    keys = SPELLINGS["kohya" if alpha else "diffusers"](LAYER, down, up)
    scale = {f"lora_unet_{LAYER.replace('.', '_')}.alpha": torch.tensor(alpha)} if alpha else {}
    path = saved(tmp_path, keys | scale)
    weight = pipe.unet.get_parameter(f"{LAYER}.weight").detach().clone()
    pipe.load_lora_weights(str(path))
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    theirs = pipe.unet.get_parameter(f"{LAYER}.weight").detach().clone()
    pipe.unet.get_parameter(f"{LAYER}.weight").data.copy_(weight)
    put_on(pipe, read_weights(path))
    assert torch.allclose(pipe.unet.get_parameter(f"{LAYER}.weight"), theirs, atol=1e-6)


# What does not fit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"conv_in.weight": torch.ones(1)}, r"conv_in.weight is \[1\] torch.float32, and unet.conv_in.weight of the model"),
        ({"conv_in.wieght": torch.ones(1), "a": torch.ones(1)}, "2 of 2 tensors fit no weight of the model: a, conv_in.w"),
        ({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(1)}, "names of the original layout; convert"),
        ({f"unet.{LAYER}.lora_A.weight": torch.ones(2, 24)}, "1 of 1 tensors fit no weight of the model: .*lora_A"),
        (
            {f"unet.{LAYER}.lora_A.weight": torch.ones(2, 5), f"unet.{LAYER}.lora_B.weight": torch.ones(8, 2)},
            "made for another model",
        ),
        (
            {f"unet.{LAYER}.lora_A.weight": torch.ones(3, 24), f"unet.{LAYER}.lora_B.weight": torch.ones(8, 2)},
            "made for another model",
        ),
        (
            {
                f"unet.{LAYER}.lora_A.weight": torch.ones(2, 24),
                f"unet.{LAYER}.lora_B.weight": torch.ones(8, 2),
                f"unet.{LAYER}.lora_magnitude_vector": torch.ones(8),
            },
            "1 of 3 tensors fit no weight of the model: .*magnitude",
        ),
        ({"lora_unet_input_blocks_1_1.lora_down.weight": torch.ones(2, 2)}, "original layout"),
        ({f"lora_unet_x.{name}": torch.ones(2) for name in ("hada_w1_a", "alpha")}, "2 of 2 tensors fit no weight"),
        ({"conv_in.bias": torch.full((8,), float("nan"))}, "conv_in.bias holds NaN or infinite numbers"),
        ({"conv_in.bias": torch.ones(8, dtype=torch.int32)}, "conv_in.bias is .8. torch.int32"),
        ({"conv_in.bias": torch.ones(8).to(torch.float8_e4m3fn)}, "conv_in.bias is torch.float8_e4m3fn; .*not quantised"),
        ({"conv_in.bias": torch.ones(8), "unet.conv_in.bias": torch.ones(8)}, "are both unet.conv_in.bias; keep one"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_nothing_is_put_on(
    pipe: Any, tmp_path: Path, tensors: dict[str, Tensor], message: str
) -> None:
    before = copies(pipe.unet)
    with pytest.raises(UserError, match=message):
        put_on(pipe, read_weights(saved(tmp_path, tensors)))
    assert changed(pipe, before) == set()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"lora_adapter_metadata": "{"}, "header's lora_adapter_metadata cannot be read"),
        ({"lora_adapter_metadata": "[]"}, "header's lora_adapter_metadata cannot be read"),
        ({"lora_adapter_metadata": '{"unet.lora_alpha": "x"}'}, "cannot be read"),
        ({"lora_adapter_metadata": '{"unet.lora_alpha": NaN}'}, "lora_alpha is no finite number"),
        ({"lora_adapter_metadata": '{"unet.use_rslora": true}'}, "a LoRA with unet.use_rslora, which is not read"),
        ({"lora_adapter_metadata": '{"unet.alpha_pattern": {"a": 2}}'}, "a LoRA with unet.alpha_pattern"),
        ({"format": "erasebench edit 2"}, "an edit of erasebench; put it on a model with: erasebench apply"),
    ],
)
def test_headers_that_say_more_than_two_factors_are_refused(
    tmp_path: Path, metadata: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_weights(saved(tmp_path, {"x": torch.ones(1)}, metadata))


@pytest.mark.parametrize("suffix", [*PICKLES, ".safetensors"])
def test_a_pickle_is_refused_with_the_lines_that_convert_it(pipe: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"my_unet{suffix}"
    torch.save({"conv_in.bias": torch.ones(8)}, path)
    with pytest.raises(UserError, match="a pickle, which runs code when it is read") as caught:
        read_weights(path)
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    script = "\n".join(lines).replace("'my_unet", f"'{tmp_path}/my_unet")
    exec(compile(script, "the lines of the message", "exec"), {})
    written = "my_unet_converted.safetensors" if suffix == ".safetensors" else "my_unet.safetensors"
    put_on(pipe, read_weights(tmp_path / written))
    assert torch.equal(pipe.unet.conv_in.bias, torch.ones(8))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, {"x": torch.ones(1)})
    with pytest.raises(UserError, match="no such file. Did you mean 'theirs.safetensors'"):
        read_weights(tmp_path / "thiers.safetensors")
    with pytest.raises(UserError, match="no such file"):
        read_weights(tmp_path)
    for content in (b"", b"{}", b"\x08\x00\x00\x00\x00\x00\x00\x00not json", b"\xff" * 100):
        (tmp_path / "theirs.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="not a readable safetensors file"):
            read_weights(tmp_path / "theirs.safetensors")
    save_file({}, tmp_path / "theirs.safetensors")
    with pytest.raises(UserError, match="no tensor in it"):
        read_weights(tmp_path / "theirs.safetensors")


# A model with weights put on -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_random_pipe: Any) -> Path:
    path = tmp_path_factory.mktemp("models") / "base"
    tiny_random_pipe.save_pretrained(path)
    return path


def test_it_is_another_model_with_a_name_and_a_revision_of_its_own(folder: Path, tmp_path: Path) -> None:
    base = load_model(str(folder), device="cpu")
    shape = base.pipe.unet.conv_in.bias.shape
    file = saved(tmp_path, {"conv_in.bias": torch.ones(shape)})
    model = load_model(str(folder), device="cpu", weights=str(file))
    assert torch.equal(model.pipe.unet.conv_in.bias, torch.ones(shape))
    assert (base.name, model.name) == ("base", "base+theirs") and base.weights == ""
    assert (
        model.weights.startswith("theirs.safetensors (sha256 ")
        and f"weights of 1 layers, on {base.revision}" in model.weights
    )
    assert model.revision.startswith("sha256-") and model.revision != base.revision
    assert load_model(str(folder), device="cpu", weights=str(file)).revision == model.revision
    assert [info["method"] for info in edits_on(model.pipe)] == ["theirs"] and edits_on(base.pipe) == ()
    other = saved(tmp_path, {"conv_in.bias": torch.zeros(shape)})
    assert load_model(str(folder), device="cpu", weights=str(other)).revision != model.revision


def test_weights_that_overflow_the_type_are_named(folder: Path, tmp_path: Path) -> None:
    size = load_model(str(folder), device="cpu").pipe.unet.conv_in.bias.shape
    file = saved(tmp_path, {"conv_in.bias": torch.full(size, 1e6)})
    with pytest.raises(UserError, match="unet weight conv_in.bias holds NaN or infinite numbers"):
        load_model(str(folder), device="cpu", dtype="float16", weights=str(file))
