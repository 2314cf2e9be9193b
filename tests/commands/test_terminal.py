"""What terminals, pipes, full disks and signals do to a command, seen from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from erasebench.runs.state import last_error

ERASEBENCH = [sys.executable, "-m", "erasebench"]
QUICK = [
    "task=object", "task.erase=[church]", "method=uce", "metric=[judge]", "prompts.per_erased=2",
    "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=0", "prompts.general=0",
    "protocol.steps=2", "device=cpu",
]  # fmt: skip


def test_a_run_goes_on_when_its_reader_leaves(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [*ERASEBENCH, "run", *QUICK, f"store.dir={tmp_path}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    run.stdout.readline()
    run.stdout.close()
    errors = run.stderr.read()
    assert run.wait() == 0 and "Traceback" not in errors and "Exception" not in errors
    assert len(list(tmp_path.glob("images/*/*.png"))) == 4 and list(tmp_path.glob("runs/*/tables/*.md"))


def test_output_that_is_lost_is_no_loss_of_work_and_is_said(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*ERASEBENCH, "run", *QUICK, f"store.dir={tmp_path}"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1 and "No space left on device" in done.stderr and "Traceback" not in done.stderr
    assert len(list(tmp_path.glob("images/*/*.png"))) == 4 and list(tmp_path.glob("runs/*/tables/*.md"))


def test_text_that_an_encoding_lacks_is_spelt_otherwise(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,class\na café,café\na church,church\nš,church\n", encoding="utf-8")
    prompts = [f"prompts.source={tmp_path / 'p.csv'}" if "per_erased" in text else text for text in QUICK]
    prompts = ["prompts=file", *(text for text in prompts if not text.startswith(("prompts.per", "prompts.gen")))]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    for command in (["run", *prompts, f"store.dir={tmp_path}"], ["show", "protocol", "cure"]):
        done = subprocess.run([*ERASEBENCH, *command], env=ascii_only, capture_output=True)
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    (table,) = tmp_path.glob("runs/*/tables/object.md")
    assert "↓" in table.read_text(encoding="utf-8"), "files are UTF-8 wherever they are written"


def test_a_listing_ends_quietly_when_its_reader_leaves() -> None:
    listing = subprocess.Popen([*ERASEBENCH, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    listing.stdout.close()
    assert listing.stderr.read() == b"" and listing.wait() == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_request_to_stop_keeps_what_is_finished(name: str, tmp_path: Path) -> None:
    number = getattr(signal, name)
    more = [text.replace("per_erased=2", "per_erased=40") for text in QUICK]
    run = subprocess.Popen(
        [*ERASEBENCH, "run", *more, "batch_size=1", "protocol.steps=12", f"store.dir={tmp_path}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("images/*/*.png")) and run.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.send_signal(number)
    run.send_signal(number)  # a closing terminal sends two
    errors = run.stderr.read()
    assert run.wait() == 128 + number and "stopped; what is finished is kept" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.glob("images/*/*.png")) and not list(tmp_path.glob("images/*/.*.tmp"))
    (folder,) = tmp_path.glob("runs/*")
    assert "StopRequested" in last_error(folder) and not list(tmp_path.glob("claims/*"))
