"""Lets torchvision be imported beside a torch without CUDA: its own build for CUDA cannot load there, and its import then fails.

Only the operators of detection are missing, which no classifier uses. To be imported before torchvision.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import library

_OPERATORS = (
    "nms",
    "qnms",
)  # those whose shape functions torchvision registers without a look at whether they are there


def declare() -> Any:
    """Declare what the library would have defined, if it does not load; whoever keeps the answer keeps the declarations."""
    found = importlib.util.find_spec("torchvision")
    assert found is not None
    assert found.origin is not None
    operators: Any = torch.ops  # neither is typed
    define_in: Any = vars(library)["Library"]
    try:
        operators.load_library(next(iter(Path(found.origin).parent.glob("_C.*"))))
    except (OSError, StopIteration):
        declared = define_in("torchvision", "DEF")
        for name in _OPERATORS:
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return declared
    return None


KEPT = declare()
