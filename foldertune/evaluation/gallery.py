"""Pictures in a report: the worst mistakes, and for each pair of classes that was mixed up the pictures themselves."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foldertune.evaluation.markup import count, escape, folded, link, name, percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Thumbnails = Mapping[str, bytes]  # JPEGs by the path of their picture
Maps = Mapping[tuple[str, str], bytes]  # JPEGs by the path of their picture and the class that they tell of
NUM_UNFOLDED = 12  # mistakes that are seen without opening the rest


@dataclass(frozen=True, slots=True)
class Mistake:
    """A picture that was answered wrongly. thumbnail: JPEG bytes; empty where there is none to show.

    doubted: its label seems wrong, so that the answer may be right.
    """

    path: str
    label: str
    answer: str
    probability: float  # of the answer
    thumbnail: bytes
    doubted: bool = False


@dataclass(frozen=True, slots=True)
class MixedPair:
    """Pictures of class `label` that were answered as `answer`. shown: some of them, the surest first."""

    label: str
    answer: str
    num_pictures: int
    shown: tuple[Mistake, ...]


def thumbnail(picture: NDArray[np.uint8], *, side_px: int = 160) -> bytes:
    """A small JPEG of a picture (H, W, 3) uint8 RGB: its longer side at most side_px, never enlarged, no metadata."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80, optimize=True)
    return buffer.getvalue()


def image(jpeg: bytes, said: str) -> str:
    """A picture of the page, with what is said to whoever cannot see it."""
    data = base64.b64encode(jpeg).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(said)}">'


def map_image(maps: Maps, path: str, label: str) -> str:
    """The map of what speaks for a class in a picture; empty where none was made."""
    found = maps.get((path, label))
    return image(found, f"The same picture with what speaks for {label} in bright colours") if found else ""


def mistakes_gallery(mistakes: Sequence[Mistake], maps: Maps) -> str:
    """Each with its map, where there is one; those after the first dozen are folded away."""
    figures = [_figure(mistake, map_image(maps, mistake.path, mistake.answer)) for mistake in mistakes]
    first, rest = figures[:NUM_UNFOLDED], figures[NUM_UNFOLDED:]
    kind = "gallery mapped" if maps else "gallery"

    def gallery(parts: Sequence[str]) -> str:
        return f'<div class="{kind}">\n' + "\n".join(parts) + "\n</div>" if parts else ""

    return gallery(first) + folded(f"{count(len(rest), 'more mistake')}", gallery(rest))


def pair_anchor(label: int, answer: int) -> str:
    """Where on the page the pictures of a pair are, by the numbers of both classes."""
    return f"pair-{label}-{answer}"


def pairs_gallery(pairs: Sequence[MixedPair], classes: Sequence[str]) -> str:
    """A strip of pictures for each pair, under the anchor that its cell of the confusion matrix leads to."""
    if not pairs:
        return ""
    numbers = {label: number for number, label in enumerate(classes)}
    return '<div class="pairs">\n' + "\n".join(_strip(pair, numbers) for pair in pairs) + "\n</div>"


def _strip(pair: MixedPair, numbers: Mapping[str, int]) -> str:
    anchor = pair_anchor(numbers[pair.label], numbers[pair.answer])
    title = f"{name(pair.label)} taken for {name(pair.answer)}: {count(pair.num_pictures, 'picture')}"
    left = pair.num_pictures - len(pair.shown)
    more = (
        f'<p class="more">{count(left, "more picture")} in {link("predictions.csv")}, by label and answer.</p>'
        if left > 0
        else ""
    )
    figures = "\n".join(map(_small, pair.shown))
    named = f"{escape(pair.label)} taken for {escape(pair.answer)}"
    strip = f'<div class="strip scroll" tabindex="0" role="region" aria-label="{named}">\n{figures}\n</div>'
    return f'<article id="{anchor}"><h3>{title}</h3>\n{strip}{more}</article>'


def _small(mistake: Mistake) -> str:
    caption = f'<p class="path">{name(mistake.path)}</p>'
    return f'<figure><div class="frame">{_picture(mistake)}{_sure(mistake)}</div><figcaption>{caption}</figcaption></figure>'


def _figure(mistake: Mistake, mapped: str) -> str:
    doubt = ' <span class="tag">doubted</span>' if mistake.doubted else ""
    words = f'<dt>Answer</dt><dd class="wrong">{name(mistake.answer)}</dd><dt>Label</dt><dd>{name(mistake.label)}{doubt}</dd>'
    caption = f'<dl>{words}</dl><p class="path">{name(mistake.path)}</p>'
    frame = f'<div class="frame">{_picture(mistake)}{mapped}{_sure(mistake)}</div>'
    return f"<figure>{frame}<figcaption>{caption}</figcaption></figure>"


def _picture(mistake: Mistake) -> str:
    if not mistake.thumbnail:
        return '<span class="nothing">no picture</span>'
    return image(mistake.thumbnail, f"A picture of class {mistake.label} that was answered {mistake.answer}")


def _sure(mistake: Mistake) -> str:
    return f'<span class="sure" title="probability of the answer">{percent(mistake.probability)}</span>'
