"""What an eraser cannot do is a sentence before any work; what goes wrong in a training loses nothing. By the public command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from training_helpers import assert_same

from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.run import run
from erasebench.store import Store

TRAINED = ["esd", "sdd", "fmn", "ablation", "salun", "few_shot", "spm", "receler", "advunlearn", "mace", "trce_full"]


@pytest.fixture(scope="module")
def folder(small_pipe, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small"
    small_pipe().save_pretrained(path)
    return path


def overrides(model: Path, store: Path, *more: str) -> list[str]:
    return [
        f"model.path={model}", "model=folder", "model.name=small", f"store.dir={store}", "task=object",
        "task.erase=[church]", "task.concepts=[church,tench]", "metric=[]", "prompts.per_erased=1",
        "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=0",
        "prompts.general=0", "protocol.size=16", "protocol.steps=2", "device=cpu", *more,
    ]  # fmt: skip


def refused(model: Path, store: Path, message: str, *more: str) -> None:
    """A run is refused with a message, and nothing was made."""
    with pytest.raises(UserError, match=message):
        run(compose(overrides(model, store, *more)))
    assert not list(store.rglob("*.png")) and not list(store.rglob("*.safetensors"))


@pytest.mark.parametrize("guard", ["negative_prompt", "sld", "adavd_released", "safree_released"])
def test_a_guard_without_a_second_pass(folder, tmp_path, guard):
    message = "acts on the second, unconditional pass, which an image at guidance 1"
    refused(folder, tmp_path, message, f"method={guard}", "protocol.guidance=1")
    refused(folder, tmp_path, message, "method=compose", f"method@method.parts.second={guard}", "protocol.guidance=1")


@pytest.mark.parametrize("guard", ["negative_prompt", "sld", "safree", "adavd"])
def test_a_guard_on_a_model_without_a_second_pass(small_flux_pipe, tmp_path, guard):
    small_flux_pipe().save_pretrained(tmp_path / "dev")
    more = (f"method={guard}", "protocol=flow_flux", "protocol.size=16", "protocol.steps=1")
    refused(tmp_path / "dev", tmp_path / "r", f"method {guard}: cannot edit small .flux.: .{{20}}", *more)


@pytest.mark.parametrize("method", TRAINED)
def test_a_training_on_a_family_that_it_does_not_know(tiny_random_sdxl_pipe, tmp_path, method):
    tiny_random_sdxl_pipe.save_pretrained(tmp_path / "xl")
    refused(tmp_path / "xl", tmp_path / "r", f"method {method}: cannot edit small .sdxl.: .{{20}}", f"method={method}")


@pytest.mark.parametrize("method", TRAINED)
def test_a_training_that_does_not_fit_into_memory(folder, tmp_path, monkeypatch, method):
    class Memory:
        available = 1000

    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory)
    refused(folder, tmp_path, rf"{method}: training needs at least .* GiB .* are free on cpu", f"method={method}")


def test_a_kind_that_a_guard_is_not_for(folder, tmp_path):
    refused(folder, tmp_path, "safety_checker: .* cannot erase church .kind object.", "method=safety_checker")


@pytest.mark.parametrize(
    ("message", "more"),
    [
        ("salun: concept 'church' has no anchor and the task nothing to retain", ["method=salun", "task.retain=none"]),
        ("ablation: concept 'church': 'church' is also the anchor", ["method=ablation", "task.anchor=church"]),
        ("leace: nothing to tell church apart from", ["method=leace", "task.retain=none"]),
        ("receler: behind 'church' there is no room for 76 soft words", ["method=receler", "method.words=76"]),
        ("retain=nowhere.csv", ["method=advunlearn", "method.retain=nowhere.csv"]),
        ("mace: its loss reads .* save_memory=false", ["method=mace", "method.save_memory=true"]),
        *(
            ("concept 'church': 'church' is also the anchor it would be mapped to", [f"method={method}", "task.anchor=church"])
            for method in ("uce", "rece", "speed", "quickfix", "mace_cfr", "trce", "mace", "trce_full")
        ),
        ("both act on the negative prompt", ["method=compose", "method@method.parts.first=negative_prompt",
                                             "method@method.parts.second=safree_released"]),
        ("parts.second .esd. trains, .* put parts.second first", ["method=compose", "method@method.parts.first=sld",
                                                                  "method@method.parts.second=esd"]),
    ],
)  # fmt: skip
def test_a_task_or_a_combination_that_cannot_be_done(folder, tmp_path, message, more):
    refused(folder, tmp_path, message, *more)


ESD = ("method=esd", "method.iterations=6", "method.steps=2", "method.train=x-strict")


def test_a_training_that_diverges_says_so_and_what_was_made_before_stays(folder, tmp_path):
    with pytest.raises(UserError, match=r"esd: the training diverged at step \d of 6 .* Use a smaller lr than 1e\+20"):
        run(compose(overrides(folder, tmp_path, *ESD, "method.lr=1e20")))
    store = Store(tmp_path)
    images = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    assert images and {store.recipe(path.stem).edit for path in images} == {""}  # those of the unedited model
    assert not list(tmp_path.glob("edits/*"))
    done = run(compose(overrides(folder, tmp_path, *ESD)))
    assert done is not None and not done.problems
    assert all(path.read_bytes() == data for path, data in images.items())


def test_a_training_that_is_killed_is_taken_up_by_the_same_command_and_ends_in_the_same_edit(folder, tmp_path):
    """kill -9 after the third checkpoint."""
    command = overrides(folder, tmp_path / "killed", *ESD)
    code = (
        "import os, signal\n"
        "from erasebench.methods.trained.checkpoint import Checkpoints\n"
        "save = Checkpoints.save\n"
        "def saved(self, losses, seconds):\n"
        "    save(self, losses, seconds)\n"
        "    if len(losses) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Checkpoints.save = saved\n"
        "from erasebench.cli import main\n"
        f"main(['run', *{command!r}])\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    (checkpoint,) = (tmp_path / "killed").glob("work/*/checkpoint.safetensors")
    for root in ("killed", "whole"):
        done = run(compose(overrides(folder, tmp_path / root, *ESD)))
        assert done is not None and not done.problems
    assert not checkpoint.exists()
    one, other = (
        Store(tmp_path / root).get_edit(next((tmp_path / root).glob("edits/*.safetensors")).stem)
        for root in ("killed", "whole")
    )
    assert one is not None and other is not None
    assert_same(one, other)
    assert "seconds_before" in one.info and one.info["loss_curve"] == other.info["loss_curve"]
