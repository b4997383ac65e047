"""Where tests find real photographs and weights: outside the project, named by FOLDERTUNE_MATERIAL, absent on most machines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
MATERIAL = Path(os.environ.get("FOLDERTUNE_MATERIAL", PROJECT.parent / "shared"))


@pytest.fixture(scope="session")
def material() -> Callable[[str], Path]:
    """Path of a piece of test material, such as `material("data/clothing")`; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        path = MATERIAL / name
        if not path.exists():
            pytest.skip(f"the test material {name} is not in {MATERIAL}; set FOLDERTUNE_MATERIAL to the folder that has it")
        return path

    return find


@pytest.fixture(scope="session")
def real_weights(material: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real ImageNet weights of a ResNet-50 as safetensors with torchvision's names."""
    maker = material("weights/make_safetensors.py")
    path = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    subprocess.run([sys.executable, str(maker), str(path)], check=True)
    return path
