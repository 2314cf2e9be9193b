"""Masks of a concept: a CLIPSeg is loaded from safetensors or refused, and MACE looks where it sees the concept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import character_tokenizer
from PIL import Image
from training_helpers import assert_resumes, noise_pictures, numbers_of, work_in
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, CLIPSegProcessor, ViTImageProcessor

from erasebench.concepts import Concept, ErasureTask
from erasebench.errors import UserError
from erasebench.methods.closed_form.mace import MaceCfr
from erasebench.methods.trained import segment
from erasebench.methods.trained.mace import Mace
from erasebench.methods.trained.segment import Segmenter

SHORT = Mace(
    refinement=MaceCfr(templates=("a photo of {}", "{} at night")), iterations=3, lr=1e-2, images=2, image_steps=2
)


@pytest.fixture(scope="session")
def clipseg(tmp_path_factory) -> Path:
    """A small random CLIPSeg, saved."""
    tokenizer = character_tokenizer()
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 77, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16,
        "patch_size": 4,
    }  # fmt: skip
    torch.manual_seed(0)
    config = CLIPSegConfig(
        text_config=text, vision_config=vision, projection_dim=12, extract_layers=[0, 1, 2], reduce_dim=8,
        decoder_num_attention_heads=2, decoder_intermediate_size=16, conditional_layer=0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("clipseg")
    CLIPSegForImageSegmentation(config).save_pretrained(folder)
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    CLIPSegProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def test_masks_are_where_the_network_is_sure_of_each_images_own_text(clipseg):
    pictures, texts = noise_pictures([], range(3), 1, 1.0), ["church", "a dog", "church"]
    pictures = [picture.resize((32, 24)) for picture in pictures]
    segmenter = Segmenter(str(clipseg), None, "mace")
    masks = segmenter.masks(pictures, texts, 0.4, "cpu")
    assert masks.shape == (3, 24, 32) and set(masks.unique().tolist()) == {0, 1}
    network, processor = segmenter.load()
    for picture, text, mask in zip(pictures, texts, masks, strict=True):
        inputs = processor(text=[text], images=[picture], padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = network(**inputs).logits
        shares = torch.nn.functional.interpolate(logits.sigmoid().reshape(1, 1, 16, 16), (24, 32), mode="bilinear")[
            0, 0
        ]
        assert torch.equal(mask, (shares >= 0.4).float())
    lower, higher = (segmenter.masks(pictures, texts, threshold, "cpu") for threshold in (0.1, 0.9))
    assert (lower >= masks).all() and (masks >= higher).all() and lower.sum() > higher.sum()


def test_mace_looks_where_the_segmenter_sees_the_concept(clipseg, tiny_random_pipe, church_task, tmp_path, monkeypatch):
    masked = replace(SHORT, segment=str(clipseg))
    asked = []

    def half(self, images, texts, threshold, device):
        asked.append((len(images), list(texts), threshold))
        mask = torch.zeros(len(images), 16, 16)
        mask[0, :, :8] = 1  # and in the second picture nothing
        return mask

    monkeypatch.setattr(Segmenter, "masks", half)
    edit = masked.edit(tiny_random_pipe, church_task, work=work_in(tmp_path / "a"))
    assert asked == [(2, ["church", "small chapel"], 0.5)]
    assert edit.info["mask"] == clipseg.name and edit.info["loras"]["church"]["images_without_mask"] == 1
    whole = numbers_of(SHORT.edit(tiny_random_pipe, church_task, work=work_in(tmp_path / "b")))
    assert any(not torch.equal(tensor, whole[name]) for name, tensor in numbers_of(edit).items())
    artist = ErasureTask((Concept("monet", "artist", anchor="art"),))
    about = masked.edit(tiny_random_pipe, artist, work=work_in(tmp_path / "c")).info["loras"]["monet"]
    assert len(asked) == 1 and about["images_without_mask"] == 2  # a style is everywhere


def test_a_training_with_masks_goes_on_where_it_was_killed(clipseg, tiny_random_pipe, church_task, tmp_path):
    assert_resumes(replace(SHORT, segment=str(clipseg)), tiny_random_pipe, church_task, tmp_path, 2, 3)


def test_the_key_knows_what_is_in_the_segmenter_and_not_where_it_is(clipseg, church_task, tmp_path):
    def key(**options) -> str:
        return replace(SHORT, **options).key("m", church_task)

    copy = tmp_path / "copy"
    copy.mkdir()
    for path in clipseg.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert key(segment=str(clipseg)) == key(segment=str(copy)) != key()
    (copy / "tokenizer_config.json").write_text((copy / "tokenizer_config.json").read_text() + " ")
    assert key(segment=str(clipseg)) != key(segment=str(copy))


def test_what_is_no_segmenter_is_refused_with_the_cure(clipseg, tiny_random_pipe, church_task, tmp_path, monkeypatch):
    def refused(source: str, message: str) -> None:
        eraser = replace(SHORT, segment=source)
        with pytest.raises(UserError, match=message):
            eraser.key("m", church_task)
            eraser.check(tiny_random_pipe, church_task)

    refused("no where", "mace: segment=no where: no such folder, and no Hub id")
    refused(str(tmp_path), r"has no config.json; give a CLIPSeg in safetensors, e.g. method.segment=CIDAS/clipseg-rd64")

    def away(*args, **options):
        assert options["allow_patterns"] == ["*.json", "*.txt", "model.safetensors"]  # no pickles
        raise OSError("offline")

    monkeypatch.setattr(segment, "snapshot_download", away)
    refused(
        "CIDAS/clipseg-rd64",
        "not in the Hub's cache .*erasebench prefetch method=mace method.segment=CIDAS/clipseg-rd64",
    )
    for name in ("config.json", "tokenizer_config.json", "processor_config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((clipseg / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    refused(str(tmp_path), "mace: .*no CLIPSeg")
    whole = CLIPSegForImageSegmentation.from_pretrained(clipseg)
    state = {name: tensor for name, tensor in whole.state_dict().items() if "decoder.reduces.0.weight" not in name}
    whole.save_pretrained(tmp_path, state_dict=state)
    refused(str(tmp_path), "no CLIPSeg: decoder.reduces.0.weight is in no file of it")
    with pytest.raises(UserError, match="mace: segment_threshold is 1"):
        replace(SHORT, segment_threshold=1)


def test_a_picture_is_read_as_rgb(clipseg):
    grey = Image.new("L", (16, 16), 90)
    segmenter = Segmenter(str(clipseg), None, "mace")
    masks = segmenter.masks([grey, grey.convert("RGB")], ["church"] * 2, 0.5, "cpu")
    assert torch.equal(masks[0], masks[1])
