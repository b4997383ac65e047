"""Real data that a dependency carries: 1,797 handwritten digits of scikit-learn, written out as a folder of pictures."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from foldertune.errors import SettingsError
from foldertune.records import Event
from foldertune.run import event
from foldertune.settings import TrainSettings

PICTURE_PX = 64  # the digits are 8 x 8; each of their pixels becomes a square
SETTINGS = TrainSettings(model="resnet18", weights="random", image_size=PICTURE_PX, augmentation="none")


def write_digits(place: Path) -> Generator[Event, None, None]:
    """PLACE/digits with one subfolder per digit and one PNG per picture, where PLACE is new or empty."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = _new_folder(place) / "digits"
    yield event("note", text=f"Writing 1,797 handwritten digits as pictures into {folder}")
    digits = load_digits()
    for number, (picture, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = (picture * (255 / 16)).round().astype(np.uint8)
        Image.fromarray(np.kron(grey, np.ones((PICTURE_PX // 8, PICTURE_PX // 8), np.uint8))).save(path)


def _new_folder(place: Path) -> Path:
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise SettingsError(f"{place} exists and is not an empty folder. Give another --run.")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"The folder {place} cannot be made: {error.strerror}. Give another --run.") from error
    return place
