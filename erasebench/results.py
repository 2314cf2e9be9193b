"""From the records of finished runs to tables and pictures: what ``run`` ends with and ``table`` does again.

Nothing here loads a model. A run's folder says which prompts, images and metrics belong together; the records of the
store say what was measured.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from erasebench import figures, tables
from erasebench.config import build
from erasebench.errors import UserError, suggest
from erasebench.files import write_atomic
from erasebench.metric import Metric
from erasebench.store import Store
from erasebench.table_files import print_tables, write_tables


def write_plan(folder: Path, rows: pd.DataFrame, costs: pd.DataFrame) -> None:
    """Put a run's plan and what its edits cost beside its config."""
    for name, frame in (("plan", rows), ("costs", costs)):
        buffer = io.BytesIO()
        frame.to_parquet(buffer, compression="zstd", index=False)
        write_atomic(folder / f"{name}.parquet", buffer.getvalue())
