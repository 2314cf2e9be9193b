"""Where prompt files come from: a path or a dataset on the Hugging Face Hub, read as a table of texts."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import errors as hub_errors
from huggingface_hub import hf_hub_download, list_repo_files, snapshot_download

from erasebench.errors import UserError, suggest

SUFFIXES = (".csv", ".parquet")
_INDEX = re.compile(r"|Unnamed: \d+|index")


def fetch(source: str | Path, revision: str | None = None) -> Path:
    """The local path of a source, downloaded first if it is on the Hub; for ``erasebench prefetch``.

    Raises:
        UserError: no such file or dataset, or the Hub cannot be reached and the file is not in its cache.
    """
    return find(source, revision)[0]


def find(source: str | Path, revision: str | None) -> tuple[Path, str, list[str]]:
    """Path of a source, what to call it, and a note if it may change under the same name."""
    text = str(source)
    path = Path(text).expanduser()
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path.name}: a prompt file is a .csv or a .parquet; export it as one of these")
        return path, path.name, []
    on_hub = re.fullmatch(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/(.+))?", text)
    local = path.is_dir() or (path.parent != Path(".") and path.parent.is_dir())
    if local or not on_hub or (not on_hub[2] and path.suffix.lower() in SUFFIXES):
        folder = path if path.is_dir() else path.parent
        there = sorted(entry.name for entry in folder.glob("*") if entry.suffix.lower() in SUFFIXES)
        what = "is a folder" if path.is_dir() else "no such file"
        listed = f" The folder has: {', '.join(there[:10])}." if there else ""
        raise UserError(
            f"prompts.source={text}: {what}.{suggest(path.name, there)} Give the path of a .csv or .parquet, "
            f"or a Hub dataset such as AIML-TUDA/i2p.{listed}"
        )
    repository, inside = on_hub.groups()
    path = _from_hub(repository, inside, revision)
    commit = next((part for before, part in zip(path.parts, path.parts[1:], strict=False) if before == "snapshots"), "")
    note = f"Hub revision not pinned; this is {commit}, pin it with prompts.revision={commit}"
    return path, f"{repository}@{commit}/{path.name}", [] if revision == commit else [note]


def _from_hub(repository: str, inside: str | None, revision: str | None) -> Path:
    """Download one CSV or Parquet file of a dataset, or take it from the Hub's cache when there is no network."""
    place = f"Hub dataset {repository}"
    at = {"repo_id": repository, "repo_type": "dataset", "revision": revision}
    try:
        name = inside or _only_file(_listing(at), repository)
        return Path(hf_hub_download(filename=name, **at))
    except UserError:
        raise
    except hub_errors.GatedRepoError as error:
        raise UserError(f"{place}: access must be asked for on its page; then log in with: hf auth login") from error
    except hub_errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{place}: no such dataset (or a private one); check the spelling, or give a file path"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise UserError(f"{place}: no revision {revision!r}; take a commit from its history") from error
    except hub_errors.LocalEntryNotFoundError as error:
        raise UserError(_unreachable(place)) from error
    except hub_errors.EntryNotFoundError as error:
        raise UserError(f"{place}: no file {inside!r}; leave the file name out to see what there is") from error
    except Exception as error:  # the HTTP library, and so its errors, differ between versions of the Hub client
        raise UserError(f"{_unreachable(place)} ({type(error).__name__}: {str(error)[:200]})") from error


def _listing(at: dict[str, Any]) -> list[str]:
    """Names of the files of a dataset; from the cache first if a commit is pinned, and last if the Hub is away."""
    pinned = re.fullmatch(r"[0-9a-f]{40}", at["revision"] or "")
    if pinned and (cached := _cached(at)):
        return cached
    try:
        return list_repo_files(**at)
    except (hub_errors.RepositoryNotFoundError, hub_errors.RevisionNotFoundError):
        raise
    except Exception:
        if cached := _cached(at):
            return cached
        raise


def _cached(at: dict[str, Any]) -> list[str]:
    try:
        folder = Path(snapshot_download(**at, local_files_only=True))
    except hub_errors.LocalEntryNotFoundError:
        return []
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


def _only_file(names: list[str], repository: str) -> str:
    files = sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)
    if len(files) != 1:
        had = f"{len(files)} data files ({', '.join(files[:10])})" if files else "no .csv or .parquet file"
        raise UserError(
            f"Hub dataset {repository}: it has {had}; name one, e.g. {repository}/{(*files, 'FILE.csv')[0]}"
        )
    return files[0]


def _unreachable(place: str) -> str:
    return (
        f"{place}: the Hub cannot be reached and the file is not in its cache; run erasebench prefetch with a network"
    )


def read(path: Path) -> pd.DataFrame:
    """All cells of a file as text, without a leading index column."""
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if not len(table):
        raise UserError(f"{path.name}: no rows below the header; is this the right file?")
    if len(table.columns) > 1 and _INDEX.fullmatch(table.columns[0]):
        table = table.iloc[:, 1:]
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    content = path.read_bytes()
    if not content.strip():
        raise UserError(f"{path.name}: the file is empty; was it downloaded fully?")
    if content.startswith(b"version https://git-lfs"):
        raise UserError(f"{path.name}: this is a Git LFS pointer, not the file itself; fetch it with: git lfs pull")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path.name} line {line}: not UTF-8 text; save the file as CSV UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records: list[list[str]] = []
    try:
        header = [name.strip() for name in next(reader)]
        for fields in reader:
            if fields:
                records.append(fields)
            if fields and len(fields) != len(header):
                raise UserError(
                    f"{place_of(path.name, len(records))}, line {reader.line_num}: {len(fields)} cells under "
                    f"{len(header)} columns ({', '.join(fields)[:80]!r}); put quotes around a text that has a comma"
                )
    except csv.Error as error:
        row = len(records) + 1
        raise UserError(
            f"{place_of(path.name, row)}, line {reader.line_num}: {error}; "
            'close every quote, and write "" for one inside a text'
        ) from error
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise UserError(f"{path.name}: two columns are named {twice[0]!r}; rename one")
    return pd.DataFrame(records, columns=header, dtype=str)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path.name}: not a readable Parquet file ({str(error)[:120]}); download it again") from error

    def text(value: Any) -> str:
        empty = value is None or (isinstance(value, float) and math.isnan(value))
        return "" if empty else str(int(value)) if isinstance(value, bool) else str(value)

    columns = {name: [text(value) for value in table.column(name).to_pylist()] for name in table.column_names}
    return pd.DataFrame(columns, dtype=str)


def place_of(file: str, row: int, column: str | None = None, case: str | None = None) -> str:
    """Where something is: data rows count from 1; a spreadsheet counts the header too."""
    known = f", case {case}" if case else ""
    return f"{file} row {row} (spreadsheet row {row + 1}{known})" + (f", column {column!r}" if column else "")
