"""Claims: one owner at a time, whatever is killed; and no owner is believed to be dead who is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from erasebench.errors import UserError
from erasebench.store import Store

JOB = "images-" + "ab" * 16


def elsewhere(path: Path, token: str = "x") -> None:
    """The claim of a process of another machine."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"place": "another boot", "host": "node7", "pid": 1, "started": 0.0, "token": token}))


def test_a_job_has_one_owner_and_is_free_again_afterwards(tmp_path: Path) -> None:
    mine, yours = Store(tmp_path), Store(tmp_path)
    with mine.claims.claim(JOB) as ours:
        assert ours and f"process {os.getpid()} on" in yours.claims.owner(JOB)
        with yours.claims.claim(JOB) as theirs, yours.claims.claim("edit-" + "cd" * 16) as another:
            assert not theirs and another
        assert yours.claims.owner(JOB), "who was refused leaves the owner's claim alone"
    assert not yours.claims.owner(JOB) and not list((tmp_path / "claims").iterdir())
    with pytest.raises(RuntimeError), mine.claims.claim(JOB):
        raise RuntimeError
    with yours.claims.claim(JOB) as free:
        assert free, "a failing owner gives it back"


RACER = """
import sys, time
from pathlib import Path
from erasebench.store import Store
root, job = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
with Store(root).claims.claim(job) as ours:
    print(ours, flush=True)
    sys.stdin.readline()
"""


def test_of_processes_that_claim_at_once_one_gets_it(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), JOB], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    got = [racer.stdout.readline() for racer in racers]
    for racer in racers:
        racer.communicate("end\n")
    assert sorted(got) == ["False\n", "False\n", "True\n"]


def test_the_claim_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    code = f"import sys, time\nfrom erasebench.store import Store\nwith Store({str(tmp_path)!r}).claims.claim({JOB!r}):\n print('has', flush=True)\n time.sleep(600)"
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert owner.stdout.readline() == b"has\n"
    store = Store(tmp_path)
    with store.claims.claim(JOB) as ours:
        assert not ours
    owner.send_signal(signal.SIGKILL)
    with store.claims.claim(JOB) as ours:
        assert ours or owner.poll() is None  # not reaped yet: a zombie, or still dying
    owner.wait()
    with store.claims.claim(JOB) as ours:
        assert ours
    owner.stdout.close()


def test_a_claim_of_another_machine_is_left_while_it_is_touched_and_taken_over_when_not(tmp_path: Path) -> None:
    path, store = tmp_path / "claims" / JOB, Store(tmp_path)
    elsewhere(path)
    os.utime(path, (0, 0))  # its clock is decades behind ours
    for _ in range(5):
        with store.claims.claim(JOB, seconds=0.3) as ours:
            assert not ours
        time.sleep(0.1)
        os.utime(path, (time.time() % 1000 + 1, time.monotonic()))
    for _ in range(2):
        with store.claims.claim(JOB, seconds=0.3) as ours:
            assert not ours, "how long it was not touched is told by who looks"
        time.sleep(0.2)
    with store.claims.claim(JOB, seconds=0.3) as ours:
        assert ours
    assert not path.exists()


def test_an_owner_shows_itself_and_does_not_remove_the_claim_of_who_took_over(tmp_path: Path) -> None:
    path, store = tmp_path / "claims" / JOB, Store(tmp_path)
    with store.claims.claim(JOB, seconds=0.2):
        before = path.stat().st_mtime_ns
        deadline = time.monotonic() + 20
        while path.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline, "it is never touched"
            time.sleep(0.02)
        elsewhere(path)
    assert json.loads(path.read_text())["host"] == "node7"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"place": 1}'])
def test_a_claim_that_says_nothing_is_taken_over_when_it_is_not_touched(content: str, tmp_path: Path) -> None:
    path, store = tmp_path / "claims" / JOB, Store(tmp_path)
    path.parent.mkdir()
    path.write_text(content)
    assert store.claims.owner(JOB) in ("", "process None on None")
    with store.claims.claim(JOB, seconds=0.1) as ours:
        assert not ours, "its owner may just be writing it"
    time.sleep(0.2)
    with store.claims.claim(JOB, seconds=0.1) as ours:
        assert ours


def test_claims_of_the_dead_are_swept_and_others_are_not(tmp_path: Path) -> None:
    store, folder = Store(tmp_path), tmp_path / "claims"
    dead = subprocess.run(
        [sys.executable, "-c", f"import os\nfrom erasebench.store import Store\nc = Store({str(tmp_path)!r}).claims.claim({JOB!r})\nc.__enter__()\nos._exit(0)"],
        check=True,
    )  # fmt: skip
    assert dead.returncode == 0 and (folder / JOB).exists()
    elsewhere(folder / ("edit-" + "cd" * 16))
    elsewhere(folder / ("edit-" + "ef" * 16))
    os.utime(folder / ("edit-" + "ef" * 16), (0, 0))
    (folder / "my-notes").write_text("not ours")
    with store.claims.claim("scores-" + "12" * 16):
        Store(tmp_path).check_writable()
        assert {path.name for path in folder.iterdir()} == {"edit-" + "cd" * 16, "scores-" + "12" * 16, "my-notes"}


def test_a_folder_that_is_not_writable_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("in the way")
    with pytest.raises(UserError, match="cannot write to"), Store(tmp_path).claims.claim(JOB):
        pass


@pytest.mark.parametrize(
    "job", ["../up-" + "ab" * 16, "images", "images-", "images-" + "g" * 32, "Images-" + "ab" * 16]
)
def test_only_ids_of_jobs_become_files(job: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not the id of a job"), Store(tmp_path).claims.claim(job):
        pass
