"""Types of flags that several commands take."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from typing import Annotated, Any, Literal, TypedDict

from cyclopts import Group, Parameter

from foldertune import settings

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


def _gather_help() -> None:
    """Tell the parser of flags what each setting is for.

    It reads the docstrings in the body of a TypedDict, and Python keeps no bases of one where they are inherited: so they are put
    together, in the form that the parser reads in any docstring.
    """
    sentences = {
        key.target.id: str(text.value.value)
        for kind in ast.parse(inspect.getsource(settings)).body
        if isinstance(kind, ast.ClassDef)
        for key, text in pairwise(kind.body)
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
    taken: tuple[Any, ...] = (settings.LookSettings, settings.CompareSettings, settings.TrainSettings)
    for each in taken:
        rows = "\n".join(f"{name}\n    {sentences[name]}" for name in each.__annotations__)
        each.__doc__ = f"{inspect.cleandoc(each.__doc__)}\n\nParameters\n----------\n{rows}\n"


_gather_help()
