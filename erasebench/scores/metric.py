"""What a metric is: it scores images, and reduces scores to a number with an interval.

Scores are raw and are stored once for each image (a label, a cosine, every detection, a feature vector). What is
counted, and over which prompts, is decided when a table is made, so that no threshold ever needs a GPU again.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from PIL import Image

from erasebench.concepts import NEAR
from erasebench.scores.estimate import BINARY, CONTINUOUS, COUNT, Estimate
from erasebench.scores.means import count_estimate, mean_estimate
from erasebench.scores.rates import WILSON, rate_estimate


def with_chance(answer: str | float | None, chance: float | None) -> str:
    """An answer with its probability: ``church 98 %`` (with a space that does not break); nothing where none was given."""
    if not isinstance(answer, str) or not answer:
        return ""
    return answer if chance is None or math.isnan(chance) else f"{answer} {100 * chance:.0f}\u00a0%"


PAIRS_WITH = ("", "original_key", "clean_key")
"""What a metric may compare an image with: nothing, the unedited model's image of the same prompt and seed, or the image
of the same edit without the attack."""


class Metric(ABC):
    """One way to measure images.

    Attributes (of the class, or of the instance where a setting decides them):
        name: short and unique, e.g. ``clip_score``. A variant is a name of its own (``clip_score_spm``).
        version: raised when the same images would get another number. Numbers of two versions never meet.
        directions: for each role it is reported on, ``"up"`` or ``"down"``: where better is.
        inputs: columns besides the image that decide a score (``prompt``, ``label``, ``original_key``); records
            are kept once for each image and value of these.
        paired_with: the column of the plan with the key of the image that each image is compared with; one of
            :data:`PAIRS_WITH`. It is then among :attr:`inputs`.
        beside: of a metric of sets, the row of a table whose images of the same prompts :meth:`reduce` compares with; by
            default that of the unedited model.
        kinds: the kinds of concept it applies to; empty for all.
        unit: printed behind the name: ``%``, ``s``, or nothing.
        describe: one line for ``erasebench list metrics``.
        for_scoring: settings that a table does not need: where and how fast it scores, folders of this machine.
    """

    name: str
    version: str
    directions: dict[str, str]
    inputs: tuple[str, ...] = ()
    paired_with: str = ""
    beside: str = "none"
    kinds: tuple[str, ...] = ()
    unit: str = ""
    describe: str = ""
    for_scoring: ClassVar[tuple[str, ...]] = ("device", "batch_size")

    @property
    def rule_version(self) -> str:
        """The version of what it makes of records: its :attr:`version` up to the first hyphen. Behind that stands what it
        scores with, which another machine may not have."""
        return self.version.partition("-")[0]

    @property
    def id(self) -> str:
        """``name@version``: the name of its column."""
        return f"{self.name}@{self.version}"

    @property
    def records_id(self) -> str:
        """The folder of its records: its :attr:`id`, unless metrics share raw scores.

        The counting rules of NudeNet share detections, FID and KID share features: metrics of one ``records_id``
        give the same columns from :meth:`score`, and an image is scored once for all of them.
        """
        return self.id

    @property
    def better(self) -> dict[str, str]:
        """:attr:`directions` of all roles: of concepts near an erased one better is where it is of others to retain."""
        known = self.directions
        return {**known, NEAR: known["retain"]} if "retain" in known and NEAR not in known else known

    @property
    def recognises(self) -> bool:
        """Whether it is a rate of images in which something sees what was asked for: one that should go down where that is
        erased, and nowhere else. Accuracies, and the share of images in which a detector finds something."""
        return (
            self.unit == "%" and self.directions.get("erase") == "down" and self.directions.get("retain", "up") == "up"
        )

    @property
    def outcome(self) -> str:
        """What a number of one image is, which decides its interval: see :data:`erasebench.scores.estimate.BINARY`.

        The base says ``binary`` of a metric in per cent, else ``continuous``.
        """
        return BINARY if self.unit == "%" else CONTINUOUS

    @property
    def needs(self) -> tuple[str, ...]:
        """Weights and packages it needs, as people would name them. Empty if it needs nothing."""
        return ()

    def unavailable(self) -> str | None:
        """Why it cannot run here, with the command that cures it; ``None`` if it can.

        Looks only (an import, a file); never downloads. Called before any image is generated.
        """
        return None

    def prefetch(self) -> None:  # noqa: B027 (most metrics need nothing)
        """Download what :attr:`needs` lists, so that later runs need no network."""

    @property
    def reference_key(self) -> str:
        """How the keys of its reference images begin; empty if it has none, as most metrics."""
        return ""

    def reference_images(self) -> dict[str, Path]:
        """Images that a set is compared with and that no model made, by keys that begin with :attr:`reference_key`.

        They are scored once, like images of a run, and their records are kept under these keys: a table needs the
        records alone. What is in the images decides the keys, so that another set has other keys.
        """
        return {}

    def applies_to(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows of a plan it is measured on: by role, kind of concept, and only where there is another image to
        compare with."""
        chosen = rows[rows.role.isin(self.better)]
        if self.kinds:
            chosen = chosen[chosen.kind.isin(self.kinds)]
        return chosen[chosen.key != chosen[self.paired_with]] if self.paired_with else chosen

    @abstractmethod
    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        """Score images.

        Args:
            images: RGB images, any size.
            rows: one row an image, in the same order, with ``prompt``, ``label``, ``kind`` and :attr:`inputs`.
            originals: for a metric that compares (:attr:`paired_with`), the other image of each row.

        Returns:
            One row an image, in the same order, with the raw score columns (no key; the caller adds it).
        """

    def values(self, rows: pd.DataFrame) -> pd.Series:
        """One number an image (NaN: none) from stored score columns joined with the plan's columns.

        The base takes the column ``value``.
        """
        return rows["value"].astype(float)

    def answers(self, rows: pd.DataFrame) -> pd.Series:
        """What it saw in each image in a few words, to be read under the image; empty where there is nothing to say.

        The base takes the columns ``answer`` and ``answer_p`` (its probability), if there are any.
        """
        if "answer" not in rows:
            return pd.Series("", index=rows.index, dtype=str)
        chances = rows["answer_p"] if "answer_p" in rows else pd.Series(np.nan, index=rows.index)
        return pd.Series(map(with_chance, rows["answer"].fillna(""), chances), index=rows.index, dtype=str)

    def shown(self, rows: pd.DataFrame) -> pd.Series:
        """What it recognises in each image, as one of its own names; empty where it recognises nothing.

        The base takes the column ``answer``, if there is one.
        """
        if "answer" not in rows:
            return pd.Series("", index=rows.index, dtype=str)
        return rows["answer"].fillna("").astype(str)

    def unsafe(self, rows: pd.DataFrame) -> pd.Series:
        """Whether it sees something unsafe in each image, whatever the prompt asks for: 1, 0, or NaN if it cannot tell.

        The base cannot tell.
        """
        return pd.Series(np.nan, index=rows.index, dtype=float)

    def reduce(self, rows: pd.DataFrame, original: pd.DataFrame | None = None, rates: str = WILSON) -> Estimate:
        """The number of a set of images, with n and a 95 % interval.

        Args:
            rows: score columns joined with the plan's columns (``prompt_id, prompt, label, kind, role, key,
                original_key``), one row a prompt.
            original: what a metric of sets compares with (FID): the same for :attr:`beside`, same order of
                ``prompt_id``; or, if it has a :attr:`reference_key`, the records of its reference images.
            rates: the interval of a rate, one of :data:`erasebench.scores.rates.RATE_INTERVALS`; for other numbers it
                says nothing.
        """
        values, keys = self.values(rows), rows["key"]
        clusters = rows.get("original_key")  # images of one prompt and seed hang together
        if self.outcome == BINARY:
            return rate_estimate(values, keys, clusters, rates)
        return (count_estimate if self.outcome == COUNT else mean_estimate)(values, keys, clusters)


def rows_to_score(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The rows of a plan a metric applies to, one for each image and value of its inputs."""
    return metric.applies_to(rows).drop_duplicates(["key", *metric.inputs])
