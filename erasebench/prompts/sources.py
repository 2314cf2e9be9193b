"""Where prompt files come from: a path, or a dataset on the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, list_repo_files, snapshot_download
from huggingface_hub import errors as hub_errors

from erasebench.errors import UserError, suggest
from erasebench.prompts.formats import SUFFIXES

_TABLES = set(SUFFIXES) - {".txt"}  # a dataset's .txt is its licence; one that holds prompts can be named
_KINDS = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"


def fetch(source: str | Path, revision: str | None = None) -> Path:
    """The local path of a source, downloaded first if it is on the Hub; for ``erasebench prefetch``.

    Raises:
        UserError: as :func:`find`.
    """
    return find(source, revision)[0]


def find(
    source: str | Path, revision: str | None = None, option: str = "prompts.source"
) -> tuple[Path, str, list[str]]:
    """Path of a source, what to call it, and a note if it may change under the same name.

    Args:
        source: a path, a dataset on the Hub (``owner/name``), or one file of it (``owner/name/folder/file.csv``).
        revision: commit, tag or branch of a Hub dataset.
        option: what to call the option in messages.

    Raises:
        UserError: no such file or dataset, one that is no prompt file, or the Hub cannot be reached.
    """
    where = _where(source, option)
    if isinstance(where, Path):
        return where, where.name, []
    path = _from_hub(*where, revision)
    commit = next((part for before, part in zip(path.parts, path.parts[1:], strict=False) if before == "snapshots"), "")
    note = f"Hub revision not pinned; this is {commit}, pin it with prompts.revision={commit}"
    return path, f"{where[0]}@{commit}/{path.name}", [] if revision == commit else [note]


def is_here(source: str | Path, revision: str | None = None) -> bool:
    """Whether a source can be read without a network: a file, or a Hub dataset's file in the cache.

    Raises:
        UserError: a path that is no prompt file.
    """
    where = _where(source, "prompts.source")
    if isinstance(where, Path):
        return True
    repository, inside = where
    names = _cached({"repo_id": repository, "repo_type": "dataset", "revision": revision})
    return inside in names if inside else any(Path(name).suffix.lower() in _TABLES for name in names)


@contextmanager
def from_the_cache_alone() -> Iterator[None]:
    """Inside the block nothing comes from the Hub but what is in its cache: whoever only looks downloads nothing, also
    where an eraser reads a file of names as it is made."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _where(source: str | Path, option: str) -> Path | tuple[str, str | None]:
    """The file that a source names, or the Hub dataset and the file of it, if that is said."""
    text = str(source)
    try:
        path = Path(text).expanduser()
        is_file, is_folder, beside = path.is_file(), path.is_dir(), path.parent.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, an unknown ~user
        raise UserError(f"{option}={text[:100]}: no path ({error!s:.100}); give that of a {_KINDS}") from error
    if is_file:
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path.name}: a prompt file is a {_KINDS}; save it as one of these")
        return path
    on_hub = re.fullmatch(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/(.+))?", text)
    local = is_folder or (path.parent != Path(".") and beside)
    if local or not on_hub or (not on_hub[2] and path.suffix.lower() in SUFFIXES):
        folder = path if is_folder else path.parent
        there = sorted(entry.name for entry in folder.glob("*") if entry.suffix.lower() in SUFFIXES and entry.is_file())
        what = "is a folder" if is_folder else "is no regular file" if path.exists() else "no such file"
        listed = f" The folder has: {', '.join(there[:10])}." if there else ""
        raise UserError(
            f"{option}={text}: {what}.{suggest(path.name, there)} Give the path of a {_KINDS}, "
            f"or a Hub dataset such as AIML-TUDA/i2p.{listed}"
        )
    repository, inside = on_hub.groups()
    if inside and Path(inside).suffix.lower() not in SUFFIXES:
        raise UserError(f"Hub dataset {repository}: {inside} is no prompt file, which is a {_KINDS}")
    return repository, inside


def _from_hub(repository: str, inside: str | None, revision: str | None) -> Path:
    """Download one prompt file of a dataset, or take it from the Hub's cache when there is no network."""
    place = f"Hub dataset {repository}"
    at: dict[str, Any] = {"repo_id": repository, "repo_type": "dataset", "revision": revision}
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
    files = sorted(name for name in names if Path(name).suffix.lower() in _TABLES)
    if len(files) != 1:
        had = f"{len(files)} data files ({', '.join(files[:10])})" if files else f"no {_KINDS} file"
        raise UserError(
            f"Hub dataset {repository}: it has {had}; name one, e.g. {repository}/{(*files, 'FILE.csv')[0]}"
        )
    return files[0]


def _unreachable(place: str) -> str:
    return (
        f"{place}: the Hub cannot be reached and the file is not in its cache; run erasebench prefetch with a network"
    )
