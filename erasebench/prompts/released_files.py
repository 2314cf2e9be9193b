"""The prompt files that papers released and that are no part of erasebench: where each lies, and getting it from there.

``data/prompt_files.csv`` has repository (on GitHub), path and commit of each. What arrives is kept only if it is that file:
by the hash of what it draws where that is known (``data/published_prompts.csv``), else by a whole commit and its rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import pandas as pd
from huggingface_hub import constants

from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.files import write_atomic
from erasebench.prompts.choose import from_config
from erasebench.prompts.prompt_set import PromptSet

LARGEST = 64 * 2**20
"""Bytes that a prompt file may have."""

SECONDS = 60


@dataclass(frozen=True)
class ReleasedFile:
    """A file of a paper.

    Attributes:
        prompts: the config of that group that reads it.
        repository: on GitHub, ``owner/name``.
        path: in the repository; ``<target>`` or ``<N>`` in it stands for a file each.
        commit: 40 hex digits, or the first of them where no more was read.
        contents: hashes of what it draws, see :attr:`erasebench.prompts.prompt_set.PromptSet.content`.
        rows: how many it has; empty if that is not known.
    """

    prompts: str
    repository: str
    path: str
    commit: str
    contents: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Where its bytes are."""
        return f"https://raw.githubusercontent.com/{self.repository}/{self.commit}/{quote(self.path)}"

    @property
    def can_be_fetched(self) -> bool:
        """Whether it is one file, and whatever arrives can be told from it."""
        return "<" not in self.path and bool(self.contents or re.fullmatch("[0-9a-f]{40}", self.commit))

    def __str__(self) -> str:
        hashes = f", content {' or '.join(self.contents)}" if self.contents else ", its content was not read here"
        rows = f", {' or '.join(self.rows)} rows" if self.rows else ""
        return f"{self.path} of https://github.com/{self.repository} at commit {self.commit}{rows}{hashes}"


@cache
def known_prompts() -> pd.DataFrame:
    """The files that papers drew: ``prompts`` (a config of that group), ``file, rows, content``; the last may be empty."""
    return _shipped_rows("published_prompts.csv")


@cache
def released_files() -> dict[str, ReleasedFile]:
    """By the name of their config, the files whose place is known."""
    every, by_prompts = known_prompts(), {}
    for row in _shipped_rows("prompt_files.csv").to_dict("records"):
        of_it = every[every.prompts == row["prompts"]]
        contents = tuple(text for text in of_it.content if text)
        # Of a part that is drawn from a file, the rows are those of the part.
        by_prompts[row["prompts"]] = ReleasedFile(**row, contents=contents, rows=tuple(dict.fromkeys(of_it.rows)))
    return by_prompts


def _shipped_rows(name: str) -> pd.DataFrame:
    with files("erasebench").joinpath("data", name).open("r", encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def is_released(path: Path, file: ReleasedFile) -> bool:
    """Whether a file is the released one, as far as that can be told.

    Raises:
        UserError: it is no prompt file of that kind.
    """
    prompts = _prompts_in(path, file)
    if file.contents:
        return prompts.content in file.contents
    return not file.rows or str(len(prompts.rows)) in file.rows


def _prompts_in(path: Path, file: ReleasedFile) -> PromptSet:
    node = compose([f"prompts={file.prompts}", "prompts.source=x"]).prompts
    return from_config({**node, "source": str(path)}, node.get("kind") or "object", ())


def fetch_released(file: ReleasedFile, folder: Path) -> Path:
    """Get a file and put it into a folder as ``<prompts>.csv``; one that is there is taken if it is right.

    Raises:
        UserError: it cannot be told from others, cannot be had, or something else arrived; where it lies is named.
    """
    target = folder / f"{file.prompts}.csv"
    by_hand = f"get it by hand and give prompts.source=FILE: {file}"
    if target.exists():
        if is_released(target, file):
            return target
        raise UserError(f"{target}: it is not the released file; move it away, or {by_hand}")
    if not file.can_be_fetched:
        why = (
            "there are several, a file each" if "<" in file.path else "what arrives could not be told from another file"
        )
        raise UserError(f"it is not fetched, since {why}; {by_hand}")
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"HF_HUB_OFFLINE is set, so nothing is fetched; {by_hand}")
    try:
        with urlopen(file.url, timeout=SECONDS) as answer:
            data = answer.read(LARGEST + 1)
    except (URLError, OSError, ValueError) as error:
        raise UserError(f"GitHub cannot be reached, or it is no longer there ({error}); {by_hand}") from error
    arrived = target.with_name(f"{file.prompts}-arrived.csv")
    write_atomic(arrived, data)
    try:
        right = len(data) <= LARGEST and is_released(arrived, file)
    except UserError:
        right = False
    if not right:
        arrived.unlink()
        raise UserError(f"what arrived from {file.url} is another file, and was not kept; {by_hand}")
    arrived.replace(target)
    return target
