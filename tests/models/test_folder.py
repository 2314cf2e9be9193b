"""Pipelines on the disk: what may be read, which variant, and a revision that knows all that decides an image."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from erasebench.errors import UserError
from erasebench.models.folder import check_folder, content_hash, variant_of
from erasebench.models.load import embedded_folder, load_model, local_folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny_random_pipe: Any) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    tiny_random_pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "small")


def change_index(folder: Path, **changes: Any) -> None:
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | changes))


def refused(folder: Path, match: str, **options: Any) -> None:
    with pytest.raises(UserError, match=match):
        load_model(str(folder), device="cpu", **options)


def revision(folder: Path, variant: str | None = None) -> str:
    return content_hash(folder, check_folder(folder, str(folder), variant), variant)


# Revisions -----------------------------------------------------------------------------------------------------------


def test_the_embedded_model_is_what_it_was() -> None:
    """Its images and edits are stored under this revision; it changes with its weights and with nothing else."""
    assert revision(embedded_folder()) == "sha256-4586e235f51a5d33589b8ebcaabc43aa"


def test_a_setting_that_decides_pixels_is_in_the_revision(tmp_path: Path, tiny_random_sdxl_pipe: Any) -> None:
    folder = tmp_path / "xl"
    tiny_random_sdxl_pipe.save_pretrained(folder)
    first = revision(folder)
    change_index(folder, force_zeros_for_empty_prompt=False)
    assert revision(folder) != first
    change_index(folder, force_zeros_for_empty_prompt=True, _name_or_path="elsewhere", requires_safety_checker=True)
    assert revision(folder) == first
    change_index(folder, add_watermarker=True)
    assert revision(folder) == first and load_model(str(folder), device="cpu").pipe.watermark is None


# Variants ------------------------------------------------------------------------------------------------------------


def as_variant(folder: Path, variant: str, *parts: str) -> None:
    for part in parts:
        for file in (folder / part).glob("*.safetensors"):
            file.rename(file.with_name(f"{file.stem}.{variant}.safetensors"))


def test_a_folder_of_a_variant_alone_says_how_to_read_it(copy: Path) -> None:
    plain = load_model(str(copy), device="cpu")
    as_variant(copy, "fp16", "unet", "vae", "text_encoder")
    refused(copy, r"unet/ has weights of the variant fp16 only; say model.variant=fp16")
    model = load_model(str(copy), device="cpu", variant="fp16")
    assert (model.pipe.unet.conv_in.weight == plain.pipe.unet.conv_in.weight).all()
    refused(copy, r"model.variant=fp61: no file of that variant. Did you mean 'fp16'\? It has fp16", variant="fp61")


def test_a_variant_of_some_parts_stands_beside_plain_files(copy: Path) -> None:
    first = revision(copy)
    as_variant(copy, "fp16", "unet")
    refused(copy, "unet/ has weights of the variant fp16 only")
    assert load_model(str(copy), device="cpu", variant="fp16").revision != first
    shutil.copy(
        copy / "unet" / "diffusion_pytorch_model.fp16.safetensors",
        copy / "unet" / "diffusion_pytorch_model.safetensors",
    )
    assert revision(copy) == first != revision(copy, "fp16")


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("model.safetensors", ""),
        ("model-00001-of-00002.safetensors", ""),
        ("model.fp16.safetensors", "fp16"),
        ("model.fp16-00001-of-00002.safetensors", "fp16"),
        ("diffusion_pytorch_model-00001-of-00002.non_ema.safetensors", "non_ema"),
    ],
)
def test_the_variant_of_a_file(name: str, variant: str) -> None:
    assert variant_of(Path(name)) == variant


# Hostile and broken folders ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["tokenizer", "unet", "scheduler"])
@pytest.mark.parametrize("what", ["pipe", "device", "folder", "nothing"])
def test_a_file_that_is_no_file_is_refused_and_never_waited_for(copy: Path, part: str, what: str) -> None:
    path = copy / part / ("x.json" if what in ("folder", "nothing") else "x.txt")
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if what == "device" else copy / "gone")
    refused(copy, f"{part}/{path.name} is no regular file")


def test_a_text_of_gigabytes_is_refused(copy: Path) -> None:
    with (copy / "tokenizer" / "vocab.txt").open("wb") as file:
        file.truncate(2**40)
    refused(copy, "tokenizer/vocab.txt has 1,048,576 MiB, which no config or vocabulary has")


@pytest.mark.parametrize(
    "value", [[], ["diffusers"], ["diffusers", "A", "B"], [["diffusers"], "X"], [5, 6], [{}, None]]
)
def test_a_part_that_is_no_library_and_class_is_refused(copy: Path, value: list[Any]) -> None:
    change_index(copy, extra=value)
    refused(copy, "model_index.json has .* for extra, not a library and a class")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "[]", "null", "5", "\udcff", '{"_class_name": [1]}']
)
def test_an_index_that_is_no_object_is_refused(copy: Path, text: str) -> None:
    (copy / "model_index.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(copy, r"model_index.json is not a JSON object|a \[1\]; erasebench edits")


def test_a_config_nested_without_end_is_refused(copy: Path) -> None:
    (copy / "unet" / "config.json").write_text("[" * 100_000)
    refused(copy, "could not be loaded")


@pytest.mark.parametrize("size", [1_000_000_000, 0, -8, None, "8", [8, 10**9], [], 1.5])
def test_a_size_that_no_image_has_is_refused(copy: Path, size: Any) -> None:
    config = copy / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": size}))
    refused(copy, r"sample_size .* in the config of its network; give whole numbers|could not be loaded")


def test_what_is_not_needed_may_be_gone(copy: Path) -> None:
    first = revision(copy)
    change_index(copy, feature_extractor=["transformers", "CLIPImageProcessor"], image_encoder=["transformers", "CLIPVisionModelWithProjection"])  # fmt: skip
    change_index(copy, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    model = load_model(str(copy), device="cpu")
    assert model.pipe.feature_extractor is None and model.revision == first


# Paths ---------------------------------------------------------------------------------------------------------------


def test_a_mistyped_folder_is_not_taken_for_a_hub_id(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent.parent)
    here = copy.parent.name
    with pytest.raises(
        UserError, match=rf"model {here}/smal: no such folder. Did you mean 'small'\? {here}/ has small"
    ):
        local_folder(f"{here}/smal")
    assert local_folder(f"{here}/small") == Path(here) / "small"
    for path in ("./small", "../x", "a/b/c", "sd15"):
        with pytest.raises(UserError, match="no such folder, and not a Hub id"):
            local_folder(path)
    assert local_folder("nobody-here/some-model") is None
