"""Score what has no score yet: every metric over the images of a plan, in chunks that survive a kill.

A metric that fails is named and the others go on: nothing that a metric raises ever becomes a score.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from PIL import Image

from erasebench.errors import Damaged, UserError
from erasebench.images.generate import is_out_of_memory
from erasebench.progress import progress
from erasebench.scores.metric import Metric
from erasebench.store import Store

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


def rows_to_score(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The rows of a plan a metric applies to, one for each image and value of its inputs."""
    return metric.applies_to(rows).drop_duplicates(["key", *metric.inputs])


def score_missing(rows: pd.DataFrame, metrics: Sequence[Metric], store: Store) -> Unscored:
    """Bring the records of every metric up to date with the images of a plan.

    Raises:
        UserError: the store cannot be read or written.
    """
    sharing: dict[str, list[Metric]] = {}
    for metric in metrics:
        sharing.setdefault(metric.records_id, []).append(metric)
    unscored, lost = Unscored(), set[str]()
    work: list[tuple[list[Metric], pd.DataFrame, Mapping[str, Path]]] = []
    for records, members in sharing.items():
        references = {key: path for metric in members for key, path in metric.reference_images().items()}
        # References first: where the run's images have their scores, those of the references are there, too.
        wanted = pd.concat([_reference_rows(references), *(rows_to_score(rows, metric) for metric in members)])
        work.append((members, store.missing_scores(records, members[0].inputs, wanted), references))
    with progress("score", sum(len(missing) for _, missing, _ in work)) as advance:
        for members, missing, references in work:
            failure = _score_all(members[0], missing, references, store, lost, advance)
            if failure:
                unscored.failed |= {member.id: failure for member in members}
    unscored.lost = [key for key in dict.fromkeys([*rows.key, *rows.original_key]) if key in lost]
    return unscored


def _reference_rows(references: Mapping[str, Path]) -> pd.DataFrame:
    """Rows of a plan for reference images, which no prompt asked for."""
    keys = list(references)
    texts = dict.fromkeys(("prompt_id", "prompt", "label", "kind", "role"), "")
    return pd.DataFrame({"key": keys, "original_key": keys}, dtype=str).assign(**texts)


def _score_all(
    metric: Metric,
    missing: pd.DataFrame,
    references: Mapping[str, Path],
    store: Store,
    lost: set[str],
    advance: Callable[[int], None],
) -> str | None:
    """Score the rows of one metric; gives why it stopped, if it did, and adds to ``lost``."""
    for start in range(0, len(missing), IMAGES_A_WRITE):
        chunk = missing.iloc[start : start + IMAGES_A_WRITE]
        needed = ["key", metric.paired_with] if metric.paired_with else ["key"]
        images, gone = _images(store, [key for key in chunk[needed].to_numpy().ravel() if key not in references])
        lost |= gone
        chunk = chunk[~chunk[needed].isin(gone).any(axis=1)]
        try:
            images |= {key: _reference_image(references[key]) for key in chunk.key if key in references}
            scores = _scores(metric, chunk.reset_index(drop=True), images)
        except Exception as error:  # of somebody's metric: any
            return _in_one_line(error)
        try:
            store.put_scores(metric.records_id, scores)
        except ValueError as error:  # not of the disk: cells that no table can hold
            return _in_one_line(error)
        advance(len(chunk))
    return None


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


def _images(store: Store, keys: Iterable[str]) -> tuple[dict[str, Image.Image], set[str]]:
    """Images by key, and the keys that have none."""
    images: dict[str, Image.Image] = {}
    gone = set()
    for key in dict.fromkeys(keys):
        try:
            images[key] = store.image(key)
        except (KeyError, Damaged):
            gone.add(key)
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
