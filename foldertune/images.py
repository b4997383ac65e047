"""The one decoder: bytes in, uint8 RGB array out. Training, evaluation, prediction and serving all read pictures through it.

What it guarantees (docs/pictures.md has the table): the content decides the format, not the name; the header is checked before a
pixel is decoded; EXIF turns are applied; 16 bits are scaled, not clipped; transparent parts show BACKGROUND; of an
animation the first frame counts; colour profiles are ignored; a damaged file is refused whole, never half grey.
"""

from __future__ import annotations

import functools
import io
import os
import re
import stat
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldertune.errors import FoldertuneError, ImageError, SettingsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

EXTENSIONS = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".avif",
        ".heic",
        ".heif",
    )
)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # Pillow opens MPO, a kind of JPEG, as JPEG
BACKGROUND = (255, 255, 255)  # what transparent parts show; most product pictures were cut out for a white page
MOST_MEGAPIXELS = 64.0  # phones make 48 to 50
MOST_BYTES = 512 * 2**20
MOST_SCANS = 200  # of one JPEG; real progressive files have about ten, and each costs a pass over all pixels
# How to turn a picture upright, by its EXIF orientation (CIPA DC-008, tag 0x0112). Names of PIL.Image.Transpose.
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
# Tags of EXIF (CIPA DC-008): those of the picture, and of its inner directory. Where the picture was taken is never read.
_ORIENTATION, _MAKER, _MODEL, _EXIF_IFD = 0x0112, 0x010F, 0x0110, 0x8769
_TAKEN, _FRACTION = 0x9003, 0x9291
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 8
# The markers that begin a segment, and the end of image; in the data of a scan 0xff is escaped as 0xff00 (ITU-T T.81, annex B).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
_PILLOW = re.compile("PIL")


def is_picture_name(name: str) -> bool:
    """Whether a file's name says that it is a picture, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122  # names may hold what Path would normalise


def read_picture_bytes(path: Path, *, inside: Path | None = None) -> bytes:
    """The content of a picture file. Raises ImageError with the reason; a pipe or device is refused, not waited for.

    inside: a folder that links may not lead out of, asked again at the moment of reading; None follows every link.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        if inside is not None:
            path, flags = path.resolve(strict=True), flags | getattr(os, "O_NOFOLLOW", 0)
            if not path.is_relative_to(inside.resolve()):
                raise ImageError("link that leads outside of the folder")
        descriptor = os.open(path, flags)
        with os.fdopen(descriptor, "rb") as stream:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise ImageError("not a regular file")
            if facts.st_size > MOST_BYTES:
                raise ImageError(f"too large: {facts.st_size / 2**20:,.0f} MiB, the limit is {MOST_BYTES // 2**20}")
            return stream.read()
    except FileNotFoundError as error:
        raise ImageError("the file is not there") from error
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def most_pixels() -> int:
    """The largest picture that is decoded: FOLDERTUNE_MAX_MEGAPIXELS, else 64 million pixels."""
    given = os.environ.get("FOLDERTUNE_MAX_MEGAPIXELS", "")
    try:
        limit = float(given) if given else MOST_MEGAPIXELS
    except ValueError:
        limit = 0.0
    if not 0 < limit <= 10_000:
        raise SettingsError(f"FOLDERTUNE_MAX_MEGAPIXELS is {given!r}. Accepted: a number above 0, up to 10000.")
    return int(limit * 1_000_000)


def decode(content: bytes, *, at_least_px: int = 0) -> NDArray[np.uint8]:
    """The picture as (H, W, 3) uint8 RGB, upright.

    at_least_px: a large JPEG may be decoded smaller, as long as its shorter side keeps this many pixels; 0 means full size.
    Raises ImageError with the reason in a few words.
    """
    return decode_and_size(content, at_least_px=at_least_px)[0]


def decode_and_size(content: bytes, *, at_least_px: int = 0) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """What `decode` gives, and the (width, height) in pixels of the whole picture, upright, however small it was decoded."""
    pixels, size, _ = _decoded(content, at_least_px=at_least_px)
    return pixels, size


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a picture's file says of itself. Nothing of where it was taken: places are never read.

    format: by its content.   bits: of a channel.   transparent: whether it can have transparent parts.
    orientation: of EXIF, 1 where the picture is stored upright.   camera: maker and model, empty where the file does not say.
    taken_s: the camera's clock in seconds, with fractions where it has them; only differences of one camera mean something.
    """

    format: str
    num_bytes: int
    bits: int = 8
    transparent: bool = False
    orientation: int = 1
    camera: str = ""
    taken_s: float | None = None


def decode_with_facts(content: bytes, *, at_least_px: int = 0) -> tuple[NDArray[np.uint8], tuple[int, int], FileFacts]:
    """What `decode_and_size` gives, and what the file says of itself."""
    pixels, size, facts = _decoded(content, at_least_px=at_least_px, read_facts=True)
    assert facts is not None
    return pixels, size, facts


def _decoded(
    content: bytes, *, at_least_px: int, read_facts: bool = False
) -> tuple[NDArray[np.uint8], tuple[int, int], FileFacts | None]:
    import numpy as np

    if not content:
        raise ImageError("empty file")
    if content.startswith(b"\xff\xd8") and _num_scans(content) > MOST_SCANS:
        raise ImageError(f"damaged: a JPEG of more than {MOST_SCANS} scans")
    try:
        with _open(content) as image:
            _check_header(image)
            whole, bits = image.size, _bits(image) if read_facts else 8
            if at_least_px and image.format in ("JPEG", "MPO"):
                image.draft(None, (at_least_px, at_least_px))  # skips what a resize would throw away: by 2, 4 or 8
            scaled = image.size != whole
            image.load()
            orientation = _orientation(image)
            facts = _facts(image, len(content), bits, orientation) if read_facts else None
            pixels = np.asarray(_upright(_rgb(image), orientation))
    except FoldertuneError:
        raise
    except Exception as error:  # the decoders raise nearly every built-in type on damaged files
        raise ImageError(_reason(error)) from error
    if not scaled:
        return pixels, (pixels.shape[1], pixels.shape[0]), facts
    return pixels, (whole[1], whole[0]) if orientation >= 5 else whole, facts


def _bits(image: Image) -> int:
    """Bits of a channel, as the file has them: Pillow reads 16-bit colour as 8-bit colour, and only its raw mode tells."""
    tiles = getattr(image, "tile", ())
    raw = " ".join(str(argument) for tile in tiles[:1] for argument in (image.mode, tile[3]))
    return 16 if ";16" in raw else 8


def _facts(image: Image, num_bytes: int, bits: int, orientation: int) -> FileFacts:
    camera, taken_s = "", None
    try:
        exif = image.getexif()
        maker, model = (_text(exif.get(tag)) for tag in (_MAKER, _MODEL))
        camera = model if model.startswith(maker) else f"{maker} {model}"
        taken_s = _taken(exif) if exif else None
    except Exception:  # damaged metadata is no reason to refuse good pixels
        pass
    return FileFacts(
        format="JPEG" if image.format == "MPO" else str(image.format),
        num_bytes=num_bytes,
        bits=bits,
        transparent=_is_transparent(image),
        orientation=orientation,
        camera=camera.strip(),
        taken_s=taken_s,
    )


def _text(value: object) -> str:
    """What a maker wrote into its camera, at most 40 characters of it."""
    return " ".join(value.replace("\0", " ").split())[:40] if isinstance(value, str) else ""


def _taken(exif: Any) -> float | None:
    """When the shutter opened, by the camera's own clock; not when software wrote the file."""
    inner = exif.get_ifd(_EXIF_IFD)
    try:
        moment = datetime.strptime(_text(inner.get(_TAKEN)), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    fraction = _text(inner.get(_FRACTION))
    return moment + (float(f"0.{fraction}") if fraction.isdecimal() else 0.0)


def _num_scans(content: bytes) -> int:
    """How many passes over the pixels a JPEG asks for: its start-of-scan markers up to the first end of image."""
    if content.count(b"\xff\xda") <= MOST_SCANS:
        return 0  # the usual file; what follows is for those with a film, a second picture or malice behind the header
    place, scans = 2, 0
    while found := _JPEG_MARKER.search(content, place):
        place = found.end()
        kind = content[place - 1]
        if kind == 0xD9 or scans > MOST_SCANS:
            break
        scans += kind == 0xDA
        place += int.from_bytes(content[place : place + 2], "big")
    return scans


def _open(content: bytes) -> Image:
    from PIL import Image, UnidentifiedImageError

    _silence_pillow()
    if Image.MAX_IMAGE_PIXELS and most_pixels() > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most_pixels()  # Pillow would refuse from twice its own number on
    try:
        return Image.open(io.BytesIO(content), formats=accepted_formats())
    except UnidentifiedImageError:
        raise ImageError(_unknown(content)) from None


def _check_header(image: Image) -> None:
    width, height = image.size
    limit = most_pixels()
    if width * height > limit:
        raise ImageError(
            f"too large: {width} x {height} is {width * height / 1e6:,.0f} megapixels, the limit is {limit / 1e6:g}"
        )
    if min(width, height) < 1:
        raise ImageError("damaged: no pixels")


def _orientation(image: Image) -> int:
    """The EXIF orientation, 1 where there is none. Read after loading: some formats keep it behind the pixels."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata is no reason to refuse good pixels
        return 1


def _upright(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose

    turn = _TURNS.get(orientation)
    return image.transpose(Transpose[turn]) if turn else image


def _rgb(image: Image) -> Image:
    from PIL import Image, ImageChops

    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes all inks for inverted, which only Adobe's marker says
    if image.mode in ("I", "F"):
        kind = "whole" if image.mode == "I" else "floating-point"
        raise ImageError(f"pixels are 32-bit {kind} numbers without a stated white; save it with 8 or 16 bits")
    if _is_transparent(image):
        opaque = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        return Image.alpha_composite(opaque, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _is_transparent(image: Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _eight_bits(image: Image) -> Image:
    """16-bit grey as 8-bit grey: the upper byte. Pillow's own conversion would clip everything above 255 to white."""
    import numpy as np
    from PIL import Image

    order = ">u2" if image.mode.endswith("B") else "<u2"
    values = np.frombuffer(image.tobytes(), order).reshape(image.height, image.width)
    tags = getattr(image, "tag_v2", {})  # a TIFF may hold 12 bits, and may call white 0; Pillow leaves both to us
    upper = (values >> (tags.get(_BITS_PER_SAMPLE, (16,))[0] - 8)).astype(np.uint8)
    grey = Image.fromarray(255 - upper if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else upper)
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))))


def _reason(error: Exception) -> str:
    from PIL import Image

    if isinstance(error, Image.DecompressionBombError):
        return f"too large: more pixels than the limit of {most_pixels() / 1e6:g} megapixels"
    if isinstance(error, MemoryError):
        return "too large: it does not fit into memory"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"damaged: {text[:100]}"


_KNOWN_OTHERS: dict[bytes, str] = {
    b"%PDF": "PDF", b"%!PS": "PostScript", b"8BPS": "Photoshop", b"<svg": "SVG", b"<?xm": "XML or SVG", b"PK\x03\x04": "ZIP",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000", b"\x00\x00\x01\x00": "ICO", b"<htm": "HTML", b"<!DO": "HTML",
}  # fmt: skip
_KNOWN_OURS: dict[bytes, str] = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"RIFF": "WebP",
}  # fmt: skip


def _unknown(content: bytes) -> str:
    if content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis"):
        return (
            "HEIC: install the extra `heic`, or convert it to JPEG"
            if "HEIF" not in accepted_formats()
            else "damaged: HEIC"
        )
    for signature, name in _KNOWN_OTHERS.items():
        if content.lstrip()[: len(signature)] == signature or content.startswith(signature):
            return f"{name} is not an accepted format"
    for signature, name in _KNOWN_OURS.items():
        if content.startswith(signature):
            return f"damaged, or a kind of {name} that is not supported"
    return "not a picture, or damaged at its beginning"


@functools.cache
def accepted_formats() -> tuple[str, ...]:
    """The formats that are looked for in a file's content; their plugins are loaded first, all others stay out."""
    import importlib

    for plugin in ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Avif"):
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    try:
        import pillow_heif
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def _silence_pillow() -> None:
    """Pillow warns about metadata that does not matter here, and about sizes that `_check_header` refuses.

    A filter, because warnings.catch_warnings is not safe in threads; set again whenever someone has reset the filters.
    """
    installed: list[Any] = list(warnings.filters)
    if not any(entry[0] == "ignore" and entry[3] == _PILLOW for entry in installed):
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)
