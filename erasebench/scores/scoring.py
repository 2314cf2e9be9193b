"""Score what has no score yet: every metric over the images of a plan, in chunks that survive a kill."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from erasebench.progress import progress
from erasebench.scores.metric import Metric
from erasebench.store import Store

IMAGES_A_WRITE = 128
"""Images scored between two writes: what a kill can cost."""


def rows_to_score(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The rows of a plan a metric applies to, one for each image and value of its inputs."""
    return metric.applies_to(rows).drop_duplicates(["key", *metric.inputs])


def score_missing(rows: pd.DataFrame, metrics: Sequence[Metric], store: Store) -> None:
    """Bring the records of every metric up to date with the images of a plan.

    Raises:
        ValueError: a metric gave more or fewer rows than it was given images.
    """
    sharing: dict[str, list[Metric]] = {}
    for metric in metrics:
        sharing.setdefault(metric.records_id, []).append(metric)
    work: list[tuple[Metric, pd.DataFrame]] = []
    for records, members in sharing.items():
        wanted = pd.concat([rows_to_score(rows, metric) for metric in members])
        work.append((members[0], store.missing_scores(records, members[0].inputs, wanted)))
    with progress("score", sum(len(missing) for _, missing in work)) as advance:
        for metric, missing in work:
            for start in range(0, len(missing), IMAGES_A_WRITE):
                chunk = missing.iloc[start : start + IMAGES_A_WRITE].reset_index(drop=True)
                images = [store.image(key) for key in chunk.key]
                originals = [store.image(key) for key in chunk.original_key] if metric.paired else None
                scores = metric.score(images, chunk, originals)
                if len(scores) != len(chunk):
                    raise ValueError(f"metric {metric.id} gave {len(scores)} scores for {len(chunk)} images")
                identity = chunk[["key", *metric.inputs]]
                store.put_scores(metric.records_id, pd.concat([identity, scores.reset_index(drop=True)], axis=1))
                advance(len(chunk))
