"""Speed of the closed-form erasers at full size: see closed_form.py."""

from __future__ import annotations

IDS = (
    "cure_20_20", "uce2025_1", "uce2025_10_100", "uce2025_100_1000", "uce2025_1000_700", "uce2023_1", "uce2023_5",
    "rece_3_epochs", "speed_10_1000", "speed_100_1000",
)  # fmt: skip
"""All cases, in the order of the table."""
