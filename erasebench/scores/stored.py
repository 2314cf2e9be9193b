"""Metrics of a stored run: what its tables need of them is stored with it, and is read on any machine.

Names, versions and settings that a metric works out from what a machine has (which commit of a CLIP is in the cache,
which package is installed) are those of the machine that scored. Weights, packages and reference images are not asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypedDict

import pandas as pd
from PIL import Image

from erasebench.config.build import build
from erasebench.errors import UserError
from erasebench.scores.estimate import Estimate
from erasebench.scores.metric import PAIRS_WITH, Metric
from erasebench.scores.rates import WILSON
from erasebench.store.store import metric_folder
from erasebench.typed_files import check_type

_Record = TypedDict(
    "_Record",
    {
        "class": str, "settings": dict[str, Any], "name": str, "version": str, "records_id": str,
        "directions": dict[str, str], "inputs": list[str], "paired_with": str, "kinds": list[str], "unit": str,
        "describe": str,
    },
)  # fmt: skip


def to_record(metric: Metric) -> dict[str, Any]:
    """What a table needs to know of a metric, as JSON values: its class and settings, and what they made of it here."""
    kind = type(metric)
    names: list[str] = [entry.name for entry in fields(metric)] if is_dataclass(metric) else []
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "settings": {name: _jsonable(getattr(metric, name)) for name in names if name not in metric.for_scoring},
        "name": metric.name,
        "version": metric.version,
        "records_id": metric.records_id,
        "directions": dict(metric.directions),
        "inputs": list(metric.inputs),
        "paired_with": metric.paired_with,
        "kinds": list(metric.kinds),
        "unit": metric.unit,
        "describe": metric.describe,
    }


def from_record(record: Mapping[str, Any], place: str, plugins: Sequence[str] = ()) -> StoredMetric:
    """The inverse of :func:`to_record`, on any machine.

    Args:
        record: as it was stored.
        place: where, for messages.
        plugins: modules beside our own that the user of this process allows, see :func:`erasebench.config.build.build`.

    Raises:
        UserError: no record of a metric, a class that is not ours and not allowed, or one that counts otherwise than
            when the run was made.
    """
    try:
        check_type(record, _Record)
        ways = set(record["directions"].values())
        if not ways <= {"up", "down"} or record["paired_with"] not in PAIRS_WITH:
            raise ValueError("directions or paired_with are none that there are")
        metric_folder(f"{record['name']}@{record['version']}")
        metric_folder(record["records_id"])
    except ValueError as error:
        raise UserError(f"{place}: no record of a metric ({error}); give the run's command again") from error
    stored = {
        **{key: record[key] for key in ("name", "version", "unit", "paired_with", "describe")},
        "directions": dict(record["directions"]),
        "inputs": tuple(record["inputs"]),
        "kinds": tuple(record["kinds"]),
    }
    node = {**record["settings"], "_target_": record["class"]}
    metric = build(node, f"{place} {stored['name']}", Metric, plugins)
    rule = stored["version"].partition("-")[0]
    if rule != metric.rule_version:
        raise UserError(
            f"{place} {stored['name']}: its records were counted by version {rule} of the metric and would be by version "
            f"{metric.rule_version} now; give the run's command again, or read it with the erasebench that made it"
        )
    if stored["inputs"] != tuple(metric.inputs):
        raise UserError(
            f"{place} {stored['name']}: its scores are said to hang on {', '.join(stored['inputs']) or 'nothing'}, and hang on "
            f"{', '.join(metric.inputs) or 'nothing'}; give the run's command again"
        )
    return StoredMetric(metric, stored, record["records_id"])


class StoredMetric(Metric):
    """A metric as a run was scored by it: it reduces records and scores nothing.

    Args:
        metric: an object of the same class and settings, made here.
        known: the attributes that it had where the run was made.
        records_id: likewise.
    """

    def __init__(self, metric: Metric, known: Mapping[str, Any], records_id: str) -> None:
        for entry in (self, metric):  # what counts and reduces reads its own name and version, too
            vars(entry).update(known)
        self._metric = metric
        self._records_id = records_id

    @property
    def records_id(self) -> str:
        return self._records_id

    @property
    def beside(self) -> str:  # type: ignore[override]
        return self._metric.beside

    @property
    def outcome(self) -> str:
        return self._metric.outcome

    @property
    def reference_key(self) -> str:
        return self._metric.reference_key

    def applies_to(self, rows: pd.DataFrame) -> pd.DataFrame:
        return self._metric.applies_to(rows)

    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        """Never: its weights may not be here.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{self.id}: a stored run is not scored again")

    def values(self, rows: pd.DataFrame) -> pd.Series:
        return self._metric.values(rows)

    def answers(self, rows: pd.DataFrame) -> pd.Series:
        return self._metric.answers(rows)

    def shown(self, rows: pd.DataFrame) -> pd.Series:
        return self._metric.shown(rows)

    def unsafe(self, rows: pd.DataFrame) -> pd.Series:
        return self._metric.unsafe(rows)

    def reduce(self, rows: pd.DataFrame, original: pd.DataFrame | None = None, rates: str = WILSON) -> Estimate:
        return self._metric.reduce(rows, original, rates)


def _jsonable(value: Any) -> Any:
    """A setting as JSON has it: tuples are lists, and what JSON does not know (a path) is its text."""
    if isinstance(value, Mapping):
        return {str(name): _jsonable(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
