"""A folder of pictures in, a fine-tuned ResNet-50 out. The verbs of the command line, for Python:

import foldertune

run = foldertune.train("photos")
print(run.evaluate().accuracy)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foldertune.api import (
        Run,
        compare,
        demo,
        diagnose,
        evaluate,
        explain,
        list_models,
        load,
        look,
        plan,
        predict,
        resume,
        train,
    )
    from foldertune.errors import FoldertuneError

__version__ = "0.1.0"

__all__ = [
    "FoldertuneError",
    "Run",
    "__version__",
    "compare",
    "demo",
    "diagnose",
    "evaluate",
    "explain",
    "list_models",
    "load",
    "look",
    "plan",
    "predict",
    "resume",
    "speed",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a verb when it is first asked for, so that importing the package stays quick."""
    if name not in __all__:
        raise AttributeError(f"module 'foldertune' has no attribute {name!r}")
    from foldertune import api, errors

    return getattr(errors if name == "FoldertuneError" else api, name)


def __dir__() -> list[str]:
    return __all__
