"""Where tests find real photographs and weights: outside the project, named by FOLDERTUNE_MATERIAL, absent on most machines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent
MATERIAL = Path(os.environ.get("FOLDERTUNE_MATERIAL", PROJECT.parent / "shared"))


# The same examples in every run, however slow it is: a check that fails by chance stops people who changed something else.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.load_profile("steady")


SESSION = "session-"  # begins the names of folders that outlive the tests of one file


@pytest.fixture(autouse=True, scope="module")
def no_ones_leavings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The folders that a file of tests made for all of them go with it: runs of all files together take gigabytes."""
    place = tmp_path_factory.getbasetemp()
    before = set(place.iterdir())
    yield
    for path in set(place.iterdir()) - before:
        if path.is_dir() and not path.name.startswith((SESSION, "test_")):  # pytest keeps those of tests that failed
            shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def no_users_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """No test writes into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        path = str(tmp_path_factory.mktemp(f"{SESSION}cache"))
        patch.setenv("FOLDERTUNE_CACHE", path)
        yield path


@pytest.fixture(autouse=True)
def own_cache(no_users_cache: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test finds what another one left, unless its module has a cache of its own. Gone after it: together they take gigabytes."""
    if os.environ["FOLDERTUNE_CACHE"] != no_users_cache:
        yield
        return
    path = tmp_path_factory.mktemp("own")
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # of its own: what a test patches is whole again before its cache is deleted
        patch.setenv("FOLDERTUNE_CACHE", str(path))
        yield
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def material() -> Callable[[str], Path]:
    """Path of a piece of test material, such as `material("data/clothing")`; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        path = MATERIAL / name
        if not path.exists():
            pytest.skip(
                f"the test material {name} is not in {MATERIAL}; set FOLDERTUNE_MATERIAL to the folder that has it"
            )
        return path

    return find


@pytest.fixture(scope="session")
def real_weights(material: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real ImageNet weights of a ResNet-50 as safetensors with torchvision's names."""
    maker = material("weights/make_safetensors.py")
    path = tmp_path_factory.mktemp(f"{SESSION}weights") / "resnet50.safetensors"
    subprocess.run([sys.executable, str(maker), str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch on 48 made pictures of three colours; the pictures lie in `pictures` beside it."""
    place = tmp_path_factory.mktemp(f"{SESSION}small")
    random = np.random.Generator(np.random.Philox(5))
    for number in range(48):
        picture = random.integers(0, 120, (40, 48, 3), np.uint8)
        picture[..., number % 3] += 130
        path = place / "pictures" / ("red", "green", "blue")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    settings = "--model resnet18 --weights random --image-size 32 --epochs 1 --augmentation none --device cpu"
    command = [sys.executable, "-m", "foldertune", "train", str(place / "pictures"), "--run", str(place / "run")]
    variables = {**os.environ, "FOLDERTUNE_CACHE": str(place / "cache")}
    subprocess.run([*command, *settings.split()], check=True, capture_output=True, env=variables)
    return place / "run"
