"""The guide's numbers (SPEC sections 2, 5 and 6) as tables: what the documented presets give, exactly, and which network it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Band:
    """One row of the guide's table of data set sizes (SPEC 2). Ranges as (from, to)."""

    name: str
    below: float  # pictures
    batch_size: tuple[int, int]
    epochs: tuple[int, int]
    learning_rate: float
    augmentation: str


# "Under 1k" and "over 10k", "over 50,000" are the guide's words: 1,000 is medium, 10,000 is medium, 50,000 is large.
BANDS = (
    Band("small", 1_000, (8, 8), (15, 20), 2e-5, "heavy"),
    Band("medium", 10_001, (16, 16), (5, 10), 5e-5, "standard"),
    Band("large", 50_001, (32, 32), (3, 5), 1e-4, "light"),
    Band("very large", math.inf, (32, 64), (1, 3), 1e-4, "light"),
)

# SPEC 5 and the defaults of SPEC 2, exact.
FIXED: Mapping[str, Mapping[str, Any]] = {
    "guide-defaults": {"batch_size": 4, "epochs": 1, "learning_rate": 5e-5},
    "products": {"batch_size": 16, "epochs": 8, "learning_rate": 5e-5},
    "xray": {"batch_size": 8, "epochs": 12, "learning_rate": 3e-5},
    "plants": {"batch_size": 16, "epochs": 10, "learning_rate": 5e-5},
}


def band_of(num_pictures: int) -> Band:
    """The guide's row for a data set of this many pictures."""
    return next(band for band in BANDS if num_pictures < band.below)


def documented_epochs(num_pictures: int) -> tuple[int, str, str]:
    """(epochs, reason, rule) inside the guide's range: more pictures, fewer passes, on a straight line of the logarithm."""
    band = band_of(num_pictures)
    lows = {"small": 500, "medium": 1_000, "large": 10_001, "very large": 50_001}
    highs = {"small": 999, "medium": 10_000, "large": 50_000, "very large": 500_000}
    low, high = lows[band.name], highs[band.name]
    share = (math.log(min(max(num_pictures, low), high)) - math.log(low)) / (math.log(high) - math.log(low))
    fewest, most = band.epochs
    value = round(most - share * (most - fewest))
    return (
        value,
        f"{num_pictures:,} pictures: within the guide's {fewest} to {most} for a {band.name} set, fewer as it grows",
        "guide-table",
    )


# For how many pictures the guide takes each, from and to below (the tables by size and by model); of the others it gives no number.
_PICTURES: Mapping[str, tuple[float, float]] = {
    "resnet18": (0, 1_000),
    "resnet50": (1_000, 10_000),
    "resnet101": (10_000, math.inf),
    "vit_base": (5_000, math.inf),
    "vit_large": (50_000, math.inf),
}


def guide_takes(num_pictures: int) -> list[str]:
    """The networks that the guide takes for so many pictures, the smallest first."""
    return [model for model in _PICTURES if _takes(model, num_pictures)]


def guide_says(model: str, num_pictures: int) -> str:
    """Whether the guide takes a network for so many pictures, in words; empty where it gives no number."""
    if model not in _PICTURES:
        return ""
    low, high = _PICTURES[model]
    span = f"under {high:,.0f}" if not low else f"over {low:,.0f}" if math.isinf(high) else f"{low:,.0f} to {high:,.0f}"
    verdict = "takes it" if _takes(model, num_pictures) else "does not take it"
    return f"{verdict} (for {span} pictures; here are {num_pictures:,})"


def _takes(model: str, num_pictures: int) -> bool:
    low, high = _PICTURES[model]
    if math.isinf(high):
        return num_pictures > low
    return num_pictures < high if not low else low <= num_pictures <= high
