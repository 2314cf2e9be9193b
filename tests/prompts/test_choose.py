"""The options of ``prompts=``: what each of them composes to, and what a node of that group is refused for."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from erasebench.config.choices import groups
from erasebench.config.compose import compose

FILE = {
    "source": None, "schema": "auto", "kind": None, "role": None, "label": None, "where": None, "limit": None,
    "revision": None, "missing_seed": None, "empty": None,
}  # fmt: skip

OPTIONS: dict[str, dict[str, Any]] = {
    "ace_characters": {"kind": "object"},
    "artists_famous": {"kind": "artist"},
    "artists_living": {"kind": "artist"},
    "builtin": {},
    "cifar10": {},
    "coco_30k": {},
    "file": {},
    "hub_attack": {},
    "hub_language": {"columns": {"prompt": "Spanish"}},
    "hub_pinpoint": {},
    "hub_target": {},
    "i2p": {"kind": "unsafe", "role": "erase", "source": "AIML-TUDA/i2p"},
    "i2p_sexual": {
        "kind": "unsafe",
        "role": "erase",
        "source": "AIML-TUDA/i2p",
        "where": {"categories": "sexual"},
    },
    "imagenette": {"kind": "object"},
    "mace_art_100": {"kind": "artist", "schema": "artists_roles"},
    "mace_celebrity_1": {"kind": "celebrity", "schema": "celebrity_mace"},
    "mace_celebrity_5": {"kind": "celebrity", "schema": "celebrity_mace"},
    "mace_celebrity_10": {"kind": "celebrity", "schema": "celebrity_mace"},
    "mace_celebrity_100": {"kind": "celebrity", "schema": "celebrity_mace"},
    "mma": {"kind": "unsafe", "role": "erase", "schema": "mma"},
    "nudity_142": {"kind": "unsafe", "role": "erase"},
    "p4d": {"kind": "unsafe", "role": "erase"},
    "ringabell": {"kind": "unsafe", "role": "erase", "source": "Chia15/RingABell-Nudity"},
    "eraseeval": {},
    "eraseeval_artists": {},
    "eraseeval_coco": {"sample": [1000, 2024]},
    "speed_artists": {"kind": "artist"},
    "speed_celebrity_10": {"kind": "celebrity", "schema": "celebrity_speed"},
    "speed_celebrity_50": {"kind": "celebrity", "schema": "celebrity_speed"},
    "speed_celebrity_100": {"kind": "celebrity", "schema": "celebrity_speed"},
    "speed_coco": {"schema": "coco_speed", "limit": 1000},
    "speed_instances": {},
    "unlearncanvas_object": {},
    "unlearncanvas_style": {},
    "uce_artists": {"kind": "artist", "schema": "artists_roles"},
}
"""What an option says beside :data:`FILE`. A table of a paper stands on these: a change of ``file`` must not reach it."""


def test_every_option_is_listed_here() -> None:
    assert set(OPTIONS) == set(groups()["prompts"])


MADE = {
    "cifar10",
    "eraseeval",
    "eraseeval_artists",
    "hub_pinpoint",
    "speed_instances",
    "unlearncanvas_style",
    "unlearncanvas_object",
}
"""Options that are no file: :mod:`tests.prompts.test_product` says what they make."""


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"builtin"} - MADE))
def test_an_option_composes_to_what_it_always_was(name: str) -> None:
    given = ["prompts.source=own.csv"] if name == "file" else []
    node = OmegaConf.to_container(compose([f"prompts={name}", *given]).prompts)
    assert isinstance(node, dict)
    file_of = node.pop("file_of", None)
    assert node == FILE | ({"source": "own.csv"} if given else {}) | OPTIONS[name]
    assert (file_of is None) == (
        name in ("file", "i2p", "i2p_sexual")
    )  # the others say which file of which paper it has to be
