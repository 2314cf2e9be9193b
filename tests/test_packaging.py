"""What is installed: all of the package, nothing under a general name, and no network at import."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from erasebench.runs.tracking import TRACKERS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def folder(package: str) -> Path:
    """Where a package lies; the deepest mapped folder above it decides."""
    name, inside = package, ""
    while name not in SETUPTOOLS["package-dir"]:
        name, _, last = name.rpartition(".")
        inside = f"{last}/{inside}"
    return ROOT / SETUPTOOLS["package-dir"][name] / inside


def test_every_package_on_disk_is_listed_and_every_listed_one_is_on_disk() -> None:
    found = {
        ".".join(["erasebench"] * (top != "erasebench") + list(path.parent.relative_to(ROOT).parts))
        for top in ("erasebench", "methods", "metrics", "conf")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(SETUPTOOLS["packages"]) == found
    for package in found:
        assert (folder(package) / "__init__.py").exists()


def test_no_general_name_is_installed() -> None:
    assert all(name.split(".")[0] == "erasebench" for name in SETUPTOOLS["packages"])


@pytest.mark.parametrize("name", ["methods", "metrics"])
def test_the_mapped_folders_have_one_import_name(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and f"import this package as erasebench.{name}" in done.stderr


def modules() -> list[str]:
    names = []
    for package in SETUPTOOLS["packages"]:
        names += [
            f"{package}.{path.stem}"
            for path in folder(package).glob("*.py")
            if path.stem not in ("__init__", "__main__")
        ]
    return names


@pytest.mark.parametrize("name", modules())
def test_every_module_imports_and_says_what_it_is_for(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__ and len(module.__doc__) > 20


def test_files_are_short_and_nothing_is_pickled() -> None:
    for package in SETUPTOOLS["packages"]:
        for path in folder(package).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert len(text.splitlines()) <= 420, f"{path.name} has two subjects"
            assert (
                "import pickle" not in text
                and "weights_only=False" not in text
                and "trust_remote_code=True" not in text
            )


def test_config_files_and_weights_are_package_data() -> None:
    data = SETUPTOOLS["package-data"]
    assert data["erasebench.conf"] == ["**/*.yaml"] and data["erasebench.tiny"] == ["weights/**/*"]


def test_what_a_test_may_do_without_is_installed_by_the_test_extra() -> None:
    """Where it is not, the test is skipped everywhere and says nothing."""
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(need for extra in extras.values() for need in extra)]
    installed = {re.split(r"[<>=\[ ]", need)[0].replace("-", "_") for need in wanted} | {"resource"}  # not on Windows
    apart = ("all", "test", *TRACKERS)  # of the trackers a person has one, and tests have made-up ones
    assert extras["all"][0] == f"erasebench[{','.join(name for name in extras if name not in apart)}]"
    assert set(TRACKERS) <= set(extras)
    assert "erasebench[all]" in extras["test"]
    distribution = {"skimage": "scikit_image"}
    for path in (ROOT / "tests").rglob("*.py"):
        for name in re.findall(r"importorskip\(\"(\w+)", path.read_text(encoding="utf-8")):
            assert distribution.get(name, name) in installed, f"{path.name}: {name} is in no extra"
