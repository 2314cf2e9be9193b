"""Numbers that were worked out before: kept beside a run's tables, and used again while nothing that decides them changed.

Most of the time of a table goes into resampling. What it is made of (plan, records, costs, reasons) and the code that
makes it are in a key; numbers of another key are worked out again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from erasebench.errors import Damaged, UserError
from erasebench.files import read_whole, write_atomic, write_json, write_text
from erasebench.runs.costs import read_costs
from erasebench.runs.folder import read_config, read_plan
from erasebench.runs.manifest import read_manifest
from erasebench.runs.names import ABOUT_FILE, METRICS_FILE, PLAN_FILE, TABLES_FOLDER
from erasebench.store import Store
from erasebench.store.store import metric_folder
from erasebench.tables.numbers import Numbers
from erasebench.typed_files import read_json

KEPT_FOLDER, KEY_FILE, MADE_FILE, WRITTEN_FILE = "numbers", "key.txt", "made.json", "written.json"
"""In a run's folder; deleting it loses nothing."""

OURS = "erasebench."


def kept_key(folder: Path, store: Store, rates: str) -> str:
    """A hash of all that decides the numbers of a finished run.

    Args:
        folder: of the run.
        store: where its records are.
        rates: the interval of rates.

    Returns:
        Empty where it cannot be told: a metric whose code is not ours, or an experiment, which is compared besides.
    """
    try:
        records = read_json(folder / METRICS_FILE, list[dict], "") if (folder / METRICS_FILE).exists() else []
    except UserError:  # refused by who reads it to work the numbers out
        return ""
    if not records or not all(str(record.get("class")).startswith(OURS) for record in records):
        return ""
    if read_config(folder).get("experiment"):
        return ""
    digest = hashlib.sha256(f"{rates} {_code()} {read_manifest(folder)['metrics']}".encode())
    for name in (PLAN_FILE, METRICS_FILE):
        digest.update(hashlib.sha256(read_whole(folder / name)).digest())
    for metric in dict.fromkeys(str(record["records_id"]) for record in records):
        # The name of a file of records is made of what is in it.
        shards = sorted((store.root / "records" / metric_folder(metric)).glob("*.parquet"))
        digest.update(" ".join([metric, *(f"{path.name} {path.stat().st_size}" for path in shards)]).encode())
    digest.update(read_costs(folder, read_plan(folder), store).to_csv().encode())
    return digest.hexdigest()


@cache
def _code() -> str:
    """A hash of the modules that make numbers, tables and pictures of records, and of the data beside them."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    ours = Path(str(files("erasebench")))
    plugins = find_spec("erasebench.metrics")
    folders = [ours / "scores", ours / "tables", *map(Path, (plugins and plugins.submodule_search_locations) or ())]
    for folder in folders:
        yield from sorted(folder.rglob("*.py"))
    yield from (ours / "tiny" / "world.py", ours / "concepts.py", ours / "edits" / "label.py")
    yield from sorted((ours / "data").glob("*.csv"))  # published orders stand beside ours, and words are explained


def keep(numbers: Numbers, folder: Path, key: str, made: Iterable[Path]) -> None:
    """Keep numbers under a key; nothing where there is none.

    Args:
        numbers: of the run.
        folder: of the run.
        key: see :func:`kept_key`.
        made: the files of the run's folder that were made beside the numbers' own: pictures, tables of attacks.
    """
    if not key:
        return
    target = folder / KEPT_FOLDER
    (target / KEY_FILE).unlink(missing_ok=True)  # what follows is whole only once it is there again
    for entry in fields(Numbers):
        buffer = io.BytesIO()
        getattr(numbers, entry.name).to_parquet(buffer, compression="zstd")
        write_atomic(target / f"{entry.name}.parquet", buffer.getvalue())
    write_json(target / MADE_FILE, [path.relative_to(folder).as_posix() for path in made])
    write_text(target / KEY_FILE, key)


def kept(folder: Path, key: str) -> Numbers | None:
    """The numbers of a key; ``None`` if there are none, or they cannot be read."""
    target = folder / KEPT_FOLDER
    try:
        if not key or read_whole(target / KEY_FILE).decode() != key:
            return None
        frames = {
            entry.name: pd.read_parquet(io.BytesIO(read_whole(target / f"{entry.name}.parquet")))
            for entry in fields(Numbers)
        }
    except (FileNotFoundError, Damaged, UserError, OSError, ValueError):  # worked out again
        return None
    return Numbers(**frames)


def made_is_there(folder: Path) -> bool:
    """Whether every file that was made beside the kept numbers of a run is there still."""
    try:
        made = read_json(folder / KEPT_FOLDER / MADE_FILE, list[str], "")
    except (FileNotFoundError, UserError):
        return False
    return all((folder / name).is_file() for name in made)


def note_written(folder: Path) -> None:
    """Note what the files of a run's tables hold once they were written of its kept numbers, if it has any."""
    if (folder / KEPT_FOLDER / KEY_FILE).exists():
        # Hidden ones are another process's, which writes the same tables just now and renames them.
        tables = sorted(path for path in (folder / TABLES_FOLDER).iterdir() if path.is_file() and path.name[0] != ".")
        names = [ABOUT_FILE, *(path.relative_to(folder).as_posix() for path in tables)]
        write_json(folder / KEPT_FOLDER / WRITTEN_FILE, {name: _digest(folder / name) for name in names})


def written_is_there(folder: Path) -> bool:
    """Whether the files of a run's tables, and what their captions say, are as they were when they were written."""
    try:
        written = read_json(folder / KEPT_FOLDER / WRITTEN_FILE, dict[str, str], "")
        return bool(written) and all(_digest(folder / name) == digest for name, digest in written.items())
    except (OSError, Damaged, UserError):  # they are written again
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(read_whole(path)).hexdigest()
