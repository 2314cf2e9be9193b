"""Loading: right values from a folder, without a network, and a clear refusal of everything else."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from erasebench.errors import UserError
from erasebench.models import load as pipelines
from erasebench.models.load import FAMILIES, find_device, find_dtype, load_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_random_pipe):
    folder = tmp_path_factory.mktemp("models") / "small"
    tiny_random_pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "small")


@pytest.fixture
def no_network(monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise OSError("a test tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_folder_is_loaded_as_it_was_saved(saved, tiny_random_pipe, no_network):
    model = load_model(str(saved), device="cpu")
    assert (model.name, model.source, model.family) == ("small", str(saved), "sd1")
    assert model.size == 16  # 8 latents, one halving in the autoencoder
    assert (model.dtype, model.device) == ("float32", "cpu")
    assert model.pipe.safety_checker is None
    for name, weight in tiny_random_pipe.unet.state_dict().items():
        assert torch.equal(model.pipe.unet.state_dict()[name], weight)
    for name, weight in tiny_random_pipe.text_encoder.state_dict().items():
        assert torch.equal(model.pipe.text_encoder.state_dict()[name], weight)


@pytest.mark.parametrize(
    ("family", "size"),
    # 8 latents, one halving in the autoencoder; FLUX's pipeline makes 128 latents, which no config of it says.
    [("sd2", 16), ("sdxl", 16), ("sd3", 16), ("flux", 256)],
)
def test_families(family, size, request, tmp_path, no_network):
    pipe = request.getfixturevalue(f"tiny_random_{family}_pipe")
    pipe.save_pretrained(tmp_path / "m")
    model = load_model(str(tmp_path / "m"), device="cpu")
    assert (model.family, model.size) == (family, size)
    assert family in FAMILIES
    for part in ("text_encoder", "text_encoder_2", "text_encoder_3", "unet", "transformer"):
        if isinstance(getattr(pipe, part, None), torch.nn.Module):
            ours = getattr(model.pipe, part).state_dict()
            assert all(torch.equal(ours[name], value) for name, value in getattr(pipe, part).state_dict().items())


@pytest.fixture(scope="module")
def saved_sd3(tmp_path_factory, tiny_random_sd3_pipe):
    folder = tmp_path_factory.mktemp("models") / "sd3"
    tiny_random_sd3_pipe.save_pretrained(folder)
    return folder


def test_sd3_saved_without_t5_loads_without_it(small_sd3_pipe, tmp_path):
    small_sd3_pipe(t5=False).save_pretrained(tmp_path / "m")
    model = load_model(str(tmp_path / "m"), device="cpu")
    assert model.pipe.text_encoder_3 is None
    assert model.pipe("a cat", num_inference_steps=1, width=16, height=16, output_type="np").images.shape[0] == 1


def test_sd3_saved_without_another_part_is_refused(saved_sd3, tmp_path):
    copy = shutil.copytree(saved_sd3, tmp_path / "m")
    index = json.loads((copy / "model_index.json").read_text())
    index["text_encoder_2"] = [None, None]
    (copy / "model_index.json").write_text(json.dumps(index))
    refused(copy, "saved without its text_encoder_2")


def test_in_float16_the_weights_of_t5_that_overflow_stay_float32(saved_sd3):
    model = load_model(str(saved_sd3), device="cpu", dtype="float16")
    types = {name: weight.dtype for name, weight in model.pipe.text_encoder_3.named_parameters()}
    assert {dtype for name, dtype in types.items() if ".wo." in name} == {torch.float32}
    assert {dtype for name, dtype in types.items() if ".wo." not in name} == {torch.float16}
    for part in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        assert {weight.dtype for weight in getattr(model.pipe, part).parameters()} == {torch.float16}


@pytest.mark.parametrize("part", ["transformer", "text_encoder_2", "text_encoder_3"])
def test_every_part_of_sd3_is_in_its_revision_and_must_be_finite(saved_sd3, tmp_path, part):
    copy = shutil.copytree(saved_sd3, tmp_path / "m")
    first = load_model(str(copy), device="cpu").revision
    (file,) = (copy / part).glob("*.safetensors")
    weights = load_file(file)
    name = next(iter(weights))
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, file, metadata={"format": "pt"})
    assert load_model(str(copy), device="cpu").revision != first
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    refused(copy, f"{part} weight .* holds NaN")


def test_the_tokenizers_of_sd3_are_in_its_revision(saved_sd3, tmp_path):
    copy = shutil.copytree(saved_sd3, tmp_path / "m")
    first = load_model(str(copy), device="cpu").revision
    (copy / "tokenizer_3" / "spiece.model").write_bytes(b"another vocabulary")
    assert load_model(str(copy), device="cpu").revision != first


def test_half_precision_is_by_name(saved):
    model = load_model(str(saved), device="cpu", dtype="bfloat16")
    for part in ("unet", "vae", "text_encoder"):
        assert {p.dtype for p in getattr(model.pipe, part).parameters()} == {torch.bfloat16}


def test_weights_saved_in_half_precision_load_in_the_type_asked_for(tmp_path, saved):
    load_model(str(saved), device="cpu", dtype="float16").pipe.save_pretrained(tmp_path / "half")
    model = load_model(str(tmp_path / "half"), device="cpu")
    for part in ("unet", "vae", "text_encoder"):
        assert {p.dtype for p in getattr(model.pipe, part).parameters()} == {torch.float32}


def test_revision_is_the_content(saved, copy):
    first = load_model(str(saved), device="cpu").revision
    assert first.startswith("sha256-")
    assert load_model(str(copy), device="cpu").revision == first
    (copy / "notes.txt").write_text("beside the model, not in it")
    (copy / "clip").mkdir()
    (copy / "clip" / "model.safetensors").write_bytes(b"not a component")
    assert load_model(str(copy), device="cpu").revision == first
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_in.bias"][0] += 1e-3
    save_file(weights, file)
    assert load_model(str(copy), device="cpu").revision != first


def refused(path, match, **options):
    with pytest.raises(UserError, match=match):
        load_model(str(path), device="cpu", **options)


def test_a_folder_that_is_not_a_pipeline(tmp_path):
    refused(tmp_path, "model_index.json is missing")


def test_a_broken_index(copy):
    (copy / "model_index.json").write_text("{")
    refused(copy, "model_index.json is not a JSON object")


def test_another_kind_of_pipeline(copy):
    (copy / "model_index.json").write_text(json.dumps({"_class_name": "PixArtAlphaPipeline"}))
    refused(copy, "a PixArtAlphaPipeline; erasebench edits StableDiffusionPipeline.*FluxPipeline")


def test_code_from_elsewhere_is_never_loaded(copy):
    index = json.loads((copy / "model_index.json").read_text())
    index["unet"] = ["os", "system"]
    (copy / "model_index.json").write_text(json.dumps(index))
    refused(copy, "component unet wants code from 'os'")


def test_a_missing_component(copy):
    shutil.rmtree(copy / "vae")
    refused(copy, "component folder vae/ is missing")


def test_pickled_weights_are_not_loaded(copy):
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), copy / "unet" / "diffusion_pytorch_model.bin")
    file.unlink()
    refused(copy, "could not be loaded.*safetensors")


def test_a_cut_off_weight_file(copy):
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    refused(copy, "could not be loaded")


@pytest.mark.parametrize(
    ("component", "file", "tensor"),
    [
        ("unet", "diffusion_pytorch_model.safetensors", "conv_in.weight"),
        ("text_encoder", "model.safetensors", "final_layer_norm.bias"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(copy, component, file, tensor, value):
    weights = load_file(copy / component / file)
    (name,) = [name for name in weights if name.endswith(tensor)]
    weights[name].view(-1)[0] = value
    save_file(weights, copy / component / file, metadata={"format": "pt"})
    refused(copy, f"{component} weight .*{tensor} holds NaN")


@pytest.mark.parametrize(
    ("component", "file"),
    [
        ("unet", "diffusion_pytorch_model.safetensors"),
        ("vae", "diffusion_pytorch_model.safetensors"),
        ("text_encoder", "model.safetensors"),
    ],
)
def test_a_weight_that_is_in_no_file_is_never_made_up(copy, component, file):
    weights = load_file(copy / component / file)
    name = sorted(weights)[3]
    del weights[name]
    save_file(weights, copy / component / file, metadata={"format": "pt"})
    refused(copy, f"{component} weight .*{name.removeprefix('text_model.')} is in no file of {component}/")


def test_a_single_file_is_not_a_folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    refused(tmp_path / "model.safetensors", "single file")


def test_neither_a_folder_nor_a_hub_id():
    refused("/no/such/folder", "no such folder, and not a Hub id")


def test_a_folder_has_no_revision(saved):
    refused(saved, "a folder has no revisions", revision="main")


def test_a_hub_id_that_is_not_here_says_how_to_get_it(no_network):
    refused("somebody/some-model", "not in the local cache.*erasebench prefetch model.path=somebody/some-model")


def test_a_hub_id_is_loaded_from_the_cache_and_named_by_its_commit(saved, tmp_path, monkeypatch):
    commit = "a" * 40
    shutil.copytree(saved, tmp_path / commit)
    monkeypatch.setattr(pipelines, "fetch", lambda path, revision, variant: tmp_path / commit)
    model = load_model("owner/name", device="cpu")
    assert (model.revision, model.name) == (commit, "name")


def test_the_embedded_model_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(pipelines, "embedded_folder", lambda: tmp_path)
    refused("embedded", "erasebench tiny train")


def test_the_embedded_model_loads_without_a_network(no_network):
    model = load_model("embedded", device="cpu")
    assert (model.name, model.family) == ("embedded", "sd1")
    assert model.size == 64


def test_devices_and_types():
    assert find_dtype("auto", "cpu") == find_dtype("auto", "mps") == "float32"
    assert find_dtype("auto", "cuda:0") == "float16"
    assert find_device("auto") in ("cuda", "mps", "cpu")
    with pytest.raises(UserError, match="float16"):
        find_dtype("float_16", "cpu")
    with pytest.raises(UserError, match="unknown device"):
        find_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="'cuda' is not available"):
            find_device("cuda")
