"""Findings on single files: what cannot be read, what its name or its header says wrongly, and what shows too little. Pure.

Limits are guesses where nothing else is said. Those of light and detail are checked on three sets of photographs (docs/log.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from foldertune.diagnosis.findings import Asked, counted
from foldertune.images import FileFacts
from foldertune.records import Evidence, Finding, Light, Picture, Severity

EXTREME_RATIO = 3.0  # longer side over shorter
HUGE_PIXELS = 24_000_000  # a guess: the first look at such a picture takes a good part of a second
FLAT_LEVELS = 3.0  # of 255: a picture that varies less shows nothing
DARK_LEVEL, LIGHT_LEVEL = 40.0, 215.0  # of 255: what nearly all pixels of a dark one are below, of a light one above
BLUR_SHARE = 0.22  # of the median detail of its class: 2 of 3,425 photographs have less, most that were blurred by 3 pixels of 224
GREY_CHROMA = 4.0  # of 255; storing as JPEG leaves up to 3
_MANY = 0.05  # a share of unreadable files that is no accident any more
_EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "PNG": (".png",), "WEBP": (".webp",), "GIF": (".gif",), "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"), "AVIF": (".avif",), "HEIF": (".heic", ".heif"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """One readable picture with its light and its file."""

    picture: Picture
    light: Light
    file: FileFacts


def file_findings(
    seen: Sequence[Seen], unreadable: Iterable[Picture], *, image_px: int, asked: Asked
) -> Iterator[Finding]:
    """image_px: side of the network's square."""
    yield from _unreadable(tuple(unreadable), len(seen), asked)
    yield from _lights(seen, asked)
    yield from _shapes(seen, image_px, asked)
    yield from _formats(seen, asked)


def _unreadable(pictures: Sequence[Picture], num_readable: int, asked: Asked) -> Iterator[Finding]:
    if not pictures:
        return
    reasons = Counter(picture.problem for picture in pictures).most_common(3)
    share = len(pictures) / (len(pictures) + num_readable)
    yield Finding(
        "unreadable",
        f"{counted(len(pictures), 'file')} cannot be read and {'is' if len(pictures) == 1 else 'are'} left out: "
        + "; ".join(f"{count:,} x {reason}" for reason, count in reasons)
        + ". Copy them again from where they came, and look again.",
        "serious" if share >= _MANY else "warning",
        1.0,
        tuple(Evidence(picture.path, 1.0, picture.problem, label=picture.label) for picture in pictures),
        asked.look(),
    )


# --------------------------------------------------------------------------------------------------------- light and detail


def _lights(seen: Sequence[Seen], asked: Asked) -> Iterator[Finding]:
    blank = [each for each in seen if each.light.spread < FLAT_LEVELS]
    rest = [each for each in seen if each.light.spread >= FLAT_LEVELS]
    yield from _of_pictures(
        "blank", blank, lambda each: 1 - each.light.spread / FLAT_LEVELS,
        lambda each: f"varies by {each.light.spread:.1f} of 255 levels",
        f"{_show(blank)} nothing: one even colour.", asked.patch(), severity="warning",
    )  # fmt: skip
    dark = [each for each in rest if each.light.high < DARK_LEVEL]
    usual_dark = _median(each.light.high for each in rest) < DARK_LEVEL
    yield from _of_pictures(
        "dark", [] if usual_dark else dark, lambda each: 1 - each.light.high / DARK_LEVEL,
        lambda each: f"95 % of its pixels are below {each.light.high:.0f} of 255",
        f"{_are(dark)} nearly black.", asked.patch(), severity="warning",
    )  # fmt: skip
    light = [each for each in rest if each.light.low > LIGHT_LEVEL]
    usual_light = _median(each.light.low for each in rest) > LIGHT_LEVEL  # products cut out on white
    yield from _of_pictures(
        "overexposed", [] if usual_light else light, lambda each: (each.light.low - LIGHT_LEVEL) / (255 - LIGHT_LEVEL),
        lambda each: f"95 % of its pixels are above {each.light.low:.0f} of 255",
        f"{_are(light)} nearly white.", asked.patch(), severity="warning",
    )  # fmt: skip
    usual = {
        label: _median(each.light.detail for each in rest if each.picture.label == label) for label in _labels(rest)
    }
    blurred = [each for each in rest if each.light.detail < BLUR_SHARE * usual[each.picture.label]]
    yield from _of_pictures(
        "blurred", blurred, lambda each: 1 - each.light.detail / (BLUR_SHARE * usual[each.picture.label]),
        lambda each: f"{each.light.detail / usual[each.picture.label]:.0%} of the detail that its class usually has",
        f"{_have(blurred)} less than {BLUR_SHARE:.0%} of the detail that its class usually has: blurred, or enlarged.",
        asked.patch(),
        severity="warning",
    )  # fmt: skip
    grey = [each for each in rest if each.light.chroma < GREY_CHROMA]
    yield from _of_pictures(
        "grey", grey if 2 * len(grey) < len(rest) else [], lambda each: 1 - each.light.chroma / GREY_CHROMA,
        lambda _: "no colour", f"{_have(grey)} no colour; the other {len(rest) - len(grey):,} have.",
        asked.train("--augmentation", "heavy"),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- sizes and shapes


def _shapes(seen: Sequence[Seen], image_px: int, asked: Asked) -> Iterator[Finding]:
    tiny = [each for each in seen if _shorter(each) < image_px]
    yield from _of_pictures(
        "tiny", tiny, lambda each: 1 - _shorter(each) / image_px, _size,
        f"{_are(tiny)} smaller than the network's {image_px} pixels and {'is' if len(tiny) == 1 else 'are'} enlarged; "
        f"the smallest side is {min(map(_shorter, tiny), default=0)} pixels.",
        asked.train(),
        severity="warning" if sum(2 * _shorter(each) < image_px for each in tiny) > _MANY * len(seen) else "note",
    )  # fmt: skip
    huge = [each for each in seen if each.picture.width * each.picture.height >= HUGE_PIXELS]
    yield from _of_pictures(
        "huge", huge, lambda each: 1 - HUGE_PIXELS / (2 * each.picture.width * each.picture.height), _size,
        f"{_have(huge)} {HUGE_PIXELS // 1_000_000} megapixels and more, of which the network sees {image_px} x {image_px}: "
        "they are decoded once and kept, so only the first look is slow.",
        asked.train(),
    )  # fmt: skip
    extreme = [each for each in seen if _ratio(each) >= EXTREME_RATIO]
    yield from _of_pictures(
        "extreme_shape", extreme, lambda each: 1 - EXTREME_RATIO / (2 * _ratio(each)), _size,
        f"{_are(extreme)} at least {EXTREME_RATIO:.0f} times as long as wide; a square crop shows a third and less of each.",
        asked.train("--fit", "letterbox"), severity="warning" if len(extreme) > _MANY * len(seen) else "note",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------- formats


def _formats(seen: Sequence[Seen], asked: Asked) -> Iterator[Finding]:
    wrong = [each for each in seen if _suffix(each) not in _EXTENSIONS.get(each.file.format, (_suffix(each),))]
    yield from _of_pictures(
        "wrong_extension", wrong, lambda _: 1.0, lambda each: f"{each.file.format} by its content",
        f"{_have(wrong)} a name that says another format than the content; the content counts. Other programs may refuse them.",
        asked.train(),
    )  # fmt: skip
    turned = [each for each in seen if each.file.orientation != 1]
    yield from _of_pictures(
        "exif_rotated", turned, lambda _: 1.0, lambda each: f"EXIF orientation {each.file.orientation}",
        f"{_are(turned)} stored turned or mirrored, as EXIF says, and {'is' if len(turned) == 1 else 'are'} read upright. "
        "A program that ignores EXIF sees them turned.",
        asked.train(),
    )  # fmt: skip
    deep = [each for each in seen if each.file.bits > 8]
    yield from _of_pictures(
        "sixteen_bit", deep, lambda _: 1.0, lambda each: f"{each.file.bits} bits",
        f"{_have(deep)} 16 bits a channel, of which the upper 8 are read. Where only a part of the range is used, stretch it before.",
        asked.train(),
    )  # fmt: skip
    clear = [each for each in seen if each.file.transparent]
    yield from _of_pictures(
        "alpha", clear, lambda _: 1.0, lambda _: "has transparent parts",
        f"{_have(clear)} transparent parts, which show white. If another background will be met, save them on that.",
        asked.train(),
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------------------- wording


def _of_pictures(
    kind: str,
    seen: Sequence[Seen],
    score: Callable[[Seen], float],
    note: Callable[[Seen], str],
    *told: str,
    severity: Severity = "note",
) -> Iterator[Finding]:
    """One finding on these pictures, the strongest first; nothing where there are none.   told: sentence and remedy."""
    if not seen:
        return
    sentence, remedy = told
    rows = [
        Evidence(each.picture.path, round(min(1.0, max(0.0, score(each))), 3), note(each), label=each.picture.label)
        for each in seen
    ]
    rows.sort(key=lambda row: -row.score)
    yield Finding(kind, sentence, severity, rows[0].score, tuple(rows), remedy)


def _are(seen: Sequence[Seen]) -> str:
    return f"{counted(len(seen), 'picture')} {'is' if len(seen) == 1 else 'are'}"


def _have(seen: Sequence[Seen]) -> str:
    return f"{counted(len(seen), 'picture')} {'has' if len(seen) == 1 else 'have'}"


def _show(seen: Sequence[Seen]) -> str:
    return f"{counted(len(seen), 'picture')} {'shows' if len(seen) == 1 else 'show'}"


def _labels(seen: Sequence[Seen]) -> list[str]:
    return sorted({each.picture.label for each in seen})


def _median(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.median(found)) if found else 0.0


def _shorter(each: Seen) -> int:
    return min(each.picture.width, each.picture.height)


def _ratio(each: Seen) -> float:
    return max(each.picture.width, each.picture.height) / max(1, _shorter(each))


def _size(each: Seen) -> str:
    return f"{each.picture.width} x {each.picture.height} pixels"


def _suffix(each: Seen) -> str:
    return PurePosixPath(each.picture.path).suffix.lower()
