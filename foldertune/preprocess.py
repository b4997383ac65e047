"""From a decoded picture to the network's square: one way, for training, evaluation, export, prediction and serving.

Preprocessing belongs to the weights (size, crop, interpolation, mean, std) and is saved with the model as preprocess.json.
Everything here is uint8 in, uint8 out; subtracting the mean is inside the engine, so that every runtime takes the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from foldertune.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Fit = Literal["crop", "squash", "letterbox"]
Interpolation = Literal["bilinear", "bicubic"]
Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a picture becomes the network's input of S x S pixels.

    crop_fraction: side of the centre crop over the shorter side of the resized picture, in [0.01, 1].
    fit: "crop" resizes the shorter side to S / crop_fraction and takes the centre; "squash" ignores the aspect ratio;
    "letterbox" fits the longer side and fills the rest with the mean colour. squash and letterbox use the whole picture.
    mean, std: per channel, for pixels in [0, 1], RGB.
    """

    image_size: int = 224
    crop_fraction: float = 0.875
    fit: Fit = "crop"
    interpolation: Interpolation = "bilinear"
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD

    @property
    def resized_px(self) -> int:
        """The shorter side before the centre crop."""
        return round(self.image_size / self.crop_fraction)

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean colour as bytes: what letterbox bars and rotated corners are filled with."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue

    def with_changes(self, **changes: Any) -> Preprocess:
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Preprocess:
        """What `to_dict` gave. Raises SettingsError for a key, a type or a value that is not understood."""
        try:
            values = {**given, "mean": tuple(map(float, given["mean"])), "std": tuple(map(float, given["std"]))}
            result = cls(**{**values, "crop_fraction": float(values["crop_fraction"])})
            wrong = result._out_of_range()
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SettingsError(
                f"preprocess.json is not understood ({error}). It was written by another version, or edited."
            ) from error
        if wrong:
            raise SettingsError(f"preprocess.json holds a value out of range ({', '.join(wrong)}). It has been edited.")
        return result

    def _out_of_range(self) -> list[str]:
        """The names of the fields that no network could be fed with."""
        kept = {
            "image_size": type(self.image_size) is int and 1 <= self.image_size <= 4096,
            "crop_fraction": 0.01 <= self.crop_fraction <= 1,
            "fit": self.fit in get_args(Fit),
            "interpolation": self.interpolation in get_args(Interpolation),
            "mean": len(self.mean) == 3 and all(0 <= value <= 1 for value in self.mean),
            "std": len(self.std) == 3 and all(0 < value < math.inf for value in self.std),
        }
        return [name for name, is_kept in kept.items() if not is_kept]


def prepare(picture: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """The network's input for one picture.

    picture: (H, W, 3) uint8 RGB, any size.   Returns (S, S, 3) uint8 RGB.
    The arithmetic is that of torchvision's Resize and CenterCrop on Pillow pictures (antialiased), so that published weights
    see what they were evaluated with.
    """
    import numpy as np
    from PIL import Image

    height, width = picture.shape[:2]
    side = preprocess.image_size
    filter_ = Image.Resampling.BICUBIC if preprocess.interpolation == "bicubic" else Image.Resampling.BILINEAR
    image = Image.fromarray(picture)
    if preprocess.fit == "squash":
        return stretch(picture, (side, side), preprocess.interpolation)
    if preprocess.fit == "letterbox":
        scale = side / max(width, height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        square = Image.new("RGB", (side, side), preprocess.fill)
        square.paste(image.resize(inner, filter_), ((side - inner[0]) // 2, (side - inner[1]) // 2))
        return np.asarray(square)
    return _centre_crop(image, preprocess, filter_)


def stretch(picture: NDArray[np.uint8], size: tuple[int, int], interpolation: Interpolation) -> NDArray[np.uint8]:
    """The whole picture at `size` = (width, height), whatever its aspect ratio."""
    import numpy as np
    from PIL import Image

    filter_ = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(picture).resize(size, filter_))


def _centre_crop(image: Any, preprocess: Preprocess, filter_: Any) -> NDArray[np.uint8]:
    """Shorter side to resized_px, then the central S x S; only the pixels that survive the crop are computed."""
    import numpy as np

    side, shorter = preprocess.image_size, preprocess.resized_px
    width, height = image.size
    if width <= height:
        new_width, new_height = shorter, max(shorter, int(shorter * height / width))
    else:
        new_width, new_height = max(shorter, int(shorter * width / height)), shorter
    left, top = round((new_width - side) / 2), round((new_height - side) / 2)
    scale_x, scale_y = width / new_width, height / new_height
    x = (left * scale_x, min(float(width), (left + side) * scale_x))
    y = (top * scale_y, min(float(height), (top + side) * scale_y))
    # Rows first, then columns, each rounded to bytes, as a whole resize does; left alone, Pillow 13 turns the order for tall pictures.
    margin = math.ceil(2 * max(1.0, scale_y)) + 1  # what the wider of the two filters sees beyond the box
    first, last = max(0, math.floor(y[0]) - margin), min(height, math.ceil(y[1]) + margin)
    rows = image.crop((0, first, width, last))
    rows = rows.resize((side, last - first), filter_, box=(x[0], 0, x[1], last - first))
    return np.asarray(rows.resize((side, side), filter_, box=(0, y[0] - first, side, y[1] - first)))


def decode_px(preprocess: Preprocess) -> int:
    """The least shorter side, in pixels, to which a large JPEG may be scaled while decoding: twice what the resize needs.

    Twice, because closer than that the scaled decode costs fidelity.
    """
    return 2 * math.ceil(preprocess.resized_px if preprocess.fit == "crop" else preprocess.image_size)
