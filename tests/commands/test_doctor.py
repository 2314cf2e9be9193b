"""Doctor and prefetch: what is missing is said with its cure, and nothing is downloaded by looking."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from erasebench.commands.doctor import doctor
from erasebench.commands.prefetch import prefetch
from erasebench.models.load import model_here


@pytest.fixture
def empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def said(function, overrides: list[str]) -> tuple[int, str]:
    console = Console(record=True, width=300, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    status = function(overrides, console)
    return status, console.export_text()


def test_the_embedded_model_needs_nothing() -> None:
    status, text = said(doctor, [])
    assert status == 0 and "everything this config needs is here" in text and "torch " in text


def test_what_stable_diffusion_lacks_is_named_with_the_command_that_gets_it(empty_caches) -> None:
    status, text = said(doctor, ["model=sd14"])
    assert status == 1
    for part in ("CompVis/stable-diffusion-v1-4", "resnet50", "ViT-B-32", "AlexNet", "Inception"):
        assert part in text
    assert "erasebench prefetch model=sd14" in text


def test_prefetch_names_what_it_cannot_get(empty_caches) -> None:
    status, text = said(prefetch, ["model=sd14", "metric=[judge]"])
    assert status == 1 and "failed" in text and "CompVis/stable-diffusion-v1-4" in text
    assert "here      metric judge@" in text


def test_a_folder_is_here(tmp_path: Path) -> None:
    assert model_here(str(tmp_path), None) and model_here("embedded", None)
