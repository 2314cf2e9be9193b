"""What the files of a run's folder are called. No other module spells these names."""

from __future__ import annotations

MANIFEST_FILE = "manifest.json"
"""What the run is and was made with; a folder with it is a run."""

STARTS_FILE = "starts.jsonl"
"""A line for each process that began to work on it: when, where, and with which versions."""

CONFIG_FILE = "config.yaml"
"""The whole config."""

PLAN_FILE = "plan.parquet"
"""Which images belong to it."""

ABOUT_FILE = "about.json"
"""What the captions of its tables say."""

ERASERS_FILE = "erasers.json"
"""The label of each of its erasers, and what its config says of it."""

METRICS_FILE = "metrics.json"
"""What a table needs to know of each of its metrics, see :mod:`erasebench.scores.stored`."""

COSTS_FILE = "costs.parquet"
"""What its edits cost, in runs of earlier versions; it stands in the edits' notes now."""

ERROR_FILE = "last_error.json"
"""What stopped one of its processes, which one, and when."""

TABLES_FOLDER, GRIDS_FOLDER = "tables", "grids"
"""Its tables and its pictures."""

MEASURED_FILE = "measured.csv"
"""Among its tables, and those of several runs: every number, tidy and in full precision."""

SWEPT_FILE = "runs.json"
"""In the folder of a sweep's table: the names of its runs."""
