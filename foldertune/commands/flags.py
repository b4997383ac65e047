"""Types of flags that several commands take."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from cyclopts import Group, Parameter

SETTINGS = Group("Settings (what is left out, the plan decides and gives its reason)", sort_key=2)
EngineOrAuto = Literal["auto", "openvino", "onnxruntime", "torch", "compiled"]
PrecisionOrAuto = Literal["auto", "float32", "bf16", "fp16", "int8"]


class EngineFlags(TypedDict, total=False):
    """What computes the answers."""

    engine: EngineOrAuto
    """What computes; auto is the fastest on this machine that is good enough."""
    precision: PrecisionOrAuto
    """In which arithmetic; auto leaves it to what was measured (see speed)."""


Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
