"""Doctor and prefetch: what is missing is said with its cure, and nothing is downloaded by looking."""

from __future__ import annotations

import io
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
    console = Console(record=True, width=300, quiet=False, file=io.StringIO())
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


def test_prompts_belong_to_what_a_config_needs(empty_caches, tmp_path: Path) -> None:
    status, text = said(doctor, ["prompts=i2p", "task=unsafe"])
    assert status == 1 and "missing prompts AIML-TUDA/i2p: not in the Hub's cache" in text
    status, text = said(prefetch, ["prompts=i2p", "task=unsafe", "metric=[judge]"])
    assert status == 1 and "failed    prompts AIML-TUDA/i2p" in text and "here      model embedded" in text
    status, text = said(doctor, ["prompts=coco_30k"])
    assert status == 1 and "prompts.source: give the path of a file that is not part of erasebench: data/coco" in text
    status, text = said(prefetch, ["prompts=coco_30k", "metric=[judge]"])
    assert status == 1 and "failed    prompts coco_30k: HF_HUB_OFFLINE is set" in text and "data/coco_30k.csv" in text
    (tmp_path / "own.csv").write_text("prompt\na")
    status, text = said(doctor, ["prompts=file", f"prompts.source={tmp_path}/own.csv"])
    assert status == 0


def test_a_dataset_in_the_cache_is_here(empty_caches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from erasebench.prompts import sources

    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "i2p.csv").write_text("prompt\na")
    monkeypatch.setattr(sources, "snapshot_download", lambda **at: str(snapshot))
    assert sources.is_here("AIML-TUDA/i2p") and sources.is_here("AIML-TUDA/i2p/i2p.csv")
    assert not sources.is_here("AIML-TUDA/i2p/other.csv")


def test_the_files_of_tasks_and_erasers_belong_to_what_a_config_needs(tmp_path: Path) -> None:
    status, text = said(doctor, ["method=mace_cfr", f"method.preserve={tmp_path / 'captions.csv'}", "task=artist"])
    assert status == 1 and "method.preserve" in text and "captions.csv" in text
    status, text = said(doctor, ["method=speed", f"method.retain={tmp_path / 'names.csv'}", "task=artist"])
    assert status == 1 and "names.csv" in text
    (tmp_path / "p.csv").write_text("prompt,class\na tench,tench\n")
    status, text = said(doctor, ["task=artist_file", "prompts=file", f"prompts.source={tmp_path / 'p.csv'}"])
    assert status == 1 and "marks no named concept as erased" in text
    (tmp_path / "pictures").mkdir()
    real = ["metric=[fid_embedded_real]", f"metric.fid_embedded_real.reference={tmp_path / 'pictures'}"]
    status, text = said(doctor, real)
    assert status == 1 and "pictures holds none" in text


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=sd14"],
        ["prompts=i2p", "task=unsafe"],
        ["method=speed", "method.retain=somebody/names/names.csv", "task=artist"],
        ["method=leace", "method.controls=somebody/names/names.csv", "task=artist"],
        ["method=mace_cfr", "method.preserve=somebody/names/names.csv", "task=artist"],
        ["prompts=file", "prompts.source=somebody/names/names.csv"],
    ],
)
def test_looking_asks_nobody(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither for what is not here nor whether what is here is new: no connection is even tried."""
    import socket

    import huggingface_hub.constants as hub

    asked: list[object] = []

    def refuse(*to: object, **more: object) -> None:
        asked.append(to)
        raise OSError("nobody may be asked")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert not hub.HF_HUB_OFFLINE
    status, text = said(doctor, overrides)
    assert not asked and status == 1 and "missing" in text and not list(tmp_path.rglob("*.*"))
    assert not hub.HF_HUB_OFFLINE, "others may ask again"
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the Hub's library waits before it asks again
    said(prefetch, [*overrides, "metric=[judge]"])
    assert asked, "prefetch does"


def test_a_config_of_any_name_is_looked_at() -> None:
    status, text = said(doctor, ["prompts=file", "prompts.source='[/] [red]x.csv'"])
    assert status == 1 and "[/] [red]x.csv" in text
