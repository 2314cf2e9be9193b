"""Score what has no score yet: every metric over the images of a plan, in chunks that survive a kill.

A metric that fails is named and the others go on: nothing that a metric raises ever becomes a score.
"""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from PIL import Image

from erasebench.errors import Damaged, UserError
from erasebench.images.batch_size import is_out_of_memory
from erasebench.progress import progress
from erasebench.scores.metric import Metric, rows_to_score
from erasebench.store import Scored, Store

IMAGES_A_WRITE = 128
"""Images scored between two writes: what a kill can cost."""


@dataclass
class Unscored:
    """What could not be scored.

    Attributes:
        failed: why a metric stopped before its last image, by the metric's id.
        lost: keys of images that were gone or damaged when they were to be scored.
    """

    failed: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong, a sentence each."""
        lost = (
            f"{len(self.lost)} images were deleted or damaged while they were to be scored, the first: {self.lost[0]}"
            if self.lost
            else ""
        )
        return tuple(filter(None, (*(f"metric {name} failed: {why}" for name, why in self.failed.items()), lost)))


@dataclass(frozen=True, eq=False)
class Chunk:
    """Images that are scored between two writes, and go through a metric together.

    Attributes:
        metrics: that share the scores.
        rows: of a plan, one an image and value of the metric's inputs.
        scored: which of all rows of these metrics have scores.
        references: files of the images that no run made, by their keys.
    """

    metrics: tuple[Metric, ...]
    rows: pd.DataFrame
    scored: Scored
    references: Mapping[str, Path]

    @property
    def metric(self) -> Metric:
        """The one that does the scoring."""
        return self.metrics[0]

    @property
    def id(self) -> str:
        """Hash of what is scored by what, the same in every process; 32 hex digits."""
        columns = {name: self.rows[name].tolist() for name in ("key", *self.metric.inputs)}
        text = json.dumps([self.metric.records_id, columns], default=str, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def images(self) -> set[str]:
        """Keys of all images that it takes to score it, references among them."""
        beside = self.metric.paired_with
        return {*self.rows.key, *(self.rows[beside] if beside else ())}

    def missing(self) -> pd.DataFrame:
        """The rows that have no score, looked up anew: another process may just have scored them."""
        return self.rows[self.scored.lacks(self.rows)]


def chunks_to_score(rows: pd.DataFrame, metrics: Sequence[Metric], store: Store) -> list[Chunk]:
    """What lacks scores, in chunks of :data:`IMAGES_A_WRITE`.

    Where a chunk ends depends on the plan alone, not on what is scored already: so several processes make the same
    chunks, and so does one that goes on after a kill.

    Raises:
        UserError: the store cannot be read.
    """
    sharing: dict[str, list[Metric]] = {}
    for metric in metrics:
        sharing.setdefault(metric.records_id, []).append(metric)
    chunks = []
    for records, members in sharing.items():
        by = ["key", *members[0].inputs]
        references = {key: path for metric in members for key, path in metric.reference_images().items()}
        # References first: where the run's images have their scores, those of the references are there, too.
        wanted = pd.concat([_reference_rows(references), *(rows_to_score(rows, metric) for metric in members)])
        wanted = wanted.drop_duplicates(by, ignore_index=True)
        scored = store.scored(records, members[0].inputs)
        lacks = scored.lacks(wanted)
        for start in range(0, len(wanted), IMAGES_A_WRITE):
            place = slice(start, start + IMAGES_A_WRITE)
            if lacks[place].any():
                chunks.append(Chunk(tuple(members), wanted.iloc[place], scored, references))
    return chunks


def score_missing(rows: pd.DataFrame, metrics: Sequence[Metric], store: Store) -> Unscored:
    """Bring the records of every metric up to date with the images of a plan.

    Raises:
        UserError: the store cannot be read or written.
    """
    unscored, chunks = Unscored(), chunks_to_score(rows, metrics, store)
    with progress("score", sum(len(chunk.missing()) for chunk in chunks)) as advance:
        for chunk in chunks:
            advance(score_chunk(chunk, store, unscored))
    return unscored


def _reference_rows(references: Mapping[str, Path]) -> pd.DataFrame:
    """Rows of a plan for reference images, which no prompt asked for."""
    keys = list(references)
    texts = dict.fromkeys(("prompt_id", "prompt", "label", "kind", "role"), "")
    return pd.DataFrame({"key": keys, "original_key": keys}, dtype=str).assign(**texts)


def score_chunk(chunk: Chunk, store: Store, unscored: Unscored) -> int:
    """Score what a chunk lacks; returns how many rows that were. A metric that has failed before is left alone.

    Args:
        chunk: what to score.
        store: where images are, and scores go.
        unscored: what could not be scored is added here.

    Raises:
        UserError: the store cannot be read or written.
    """
    metric, missing = chunk.metric, chunk.missing()
    if missing.empty or metric.id in unscored.failed:
        return 0
    needed = ["key", metric.paired_with] if metric.paired_with else ["key"]
    references = chunk.references
    images, gone = _images(store, [key for key in missing[needed].to_numpy().ravel() if key not in references])
    unscored.lost += [key for key in gone if key not in unscored.lost]
    missing = missing[~missing[needed].isin(gone).any(axis=1)]
    failure = None
    try:
        images |= {key: _reference_image(references[key]) for key in missing.key if key in references}
        scores = _scores(metric, missing.reset_index(drop=True), images)
    except Exception as error:  # of somebody's metric: any
        failure = _in_one_line(error)
    else:
        try:
            store.put_scores(metric.records_id, scores)
        except ValueError as error:  # not of the disk: cells that no table can hold
            failure = _in_one_line(error)
    if failure:
        unscored.failed |= {member.id: failure for member in chunk.metrics}
        return 0
    return len(missing)


def _reference_image(path: Path) -> Image.Image:
    """A reference image, RGB.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except Exception as error:  # whatever a decoder raises
        raise UserError(f"reference image {path} cannot be read ({error}); take it out of the folder") from error


def _images(store: Store, keys: Iterable[str]) -> tuple[dict[str, Image.Image], list[str]]:
    """Images by key, and the keys that have none."""
    images: dict[str, Image.Image] = {}
    gone: list[str] = []
    for key in dict.fromkeys(keys):
        try:
            images[key] = store.image(key)
        except (KeyError, Damaged):
            gone.append(key)
    return images, gone


def _scores(metric: Metric, rows: pd.DataFrame, images: Mapping[str, Image.Image]) -> pd.DataFrame:
    """What is stored of a chunk: key, inputs and the metric's columns; in halves where memory runs out."""
    if rows.empty:
        return rows[["key", *metric.inputs]]
    try:
        originals = [images[key] for key in rows[metric.paired_with]] if metric.paired_with else None
        scores = metric.score([images[key] for key in rows.key], rows, originals)
        _check(scores, rows)
        return pd.concat([rows[["key", *metric.inputs]], scores.reset_index(drop=True)], axis=1)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the except, where the traceback would keep the tensors alive.
    if len(rows) == 1:
        raise UserError("out of memory for a single image; close other programs, or let it run on the cpu")
    half = len(rows) // 2
    parts = (rows.iloc[:half], rows.iloc[half:])
    return pd.concat([_scores(metric, part.reset_index(drop=True), images) for part in parts], ignore_index=True)


def _check(scores: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Refuse what could not be joined with a plan or would stay wrong once it is stored.

    Raises:
        ValueError: saying what is wrong.
    """
    if not isinstance(scores, pd.DataFrame):
        raise ValueError(f"score() gave a {type(scores).__name__}, not a DataFrame")
    if len(scores) != len(rows):
        raise ValueError(f"score() gave {len(scores)} scores for {len(rows)} images")
    names = list(scores.columns)
    if not names or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"score() gave columns {names}; they need names, each another one")
    if clash := [name for name in names if name in rows.columns]:
        raise ValueError(f"score() gave columns that a plan has, too: {', '.join(clash)}; rename them")
    for name, column in scores.items():
        if not pd.api.types.is_float_dtype(column) and column.isna().any():
            key = rows.key[column.isna().to_numpy().argmax()]
            raise ValueError(f"score() gave no {name} for image {key}; give '' or, in a column of numbers, NaN")


def _in_one_line(error: Exception) -> str:
    """An error of a metric in one line; with the place in its code, unless it was written for users."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and frame.filename != __file__]
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {text}{place}"
