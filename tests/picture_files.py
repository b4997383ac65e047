"""Picture files for tests, made by Pillow or byte by byte."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import textwrap
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foldertune.errors import ImageError
from foldertune.images import decode

ORIENTATION = 0x0112
COLOUR = (127, 80, 100)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def scene(width: int = 60, height: int = 40) -> Image.Image:
    """A smooth picture in which every side and corner differs, so that no turn or mirror goes unnoticed."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (255 * x / width, 255 * y / height, 255 * (x + 2 * y) / (width + 2 * height))
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *, bits: int, colour: int, rows: bytes, before: bytes = b"") -> bytes:
    """A PNG from its parts. rows: the filtered scanlines, not yet compressed."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + pixels + chunk(b"IEND", b"")


def flat_png(width: int, height: int) -> bytes:
    """A one-bit PNG of zeros, written without ever holding its pixels."""
    packer, row = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tiff(pixels: bytes, width: int, height: int, *, bits: int, photometric: int, sample_format: int = 1) -> bytes:
    """An uncompressed little-endian TIFF of one grey strip."""
    tags: tuple[tuple[int, int], ...] = (
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, height),
    )
    tags += ((279, len(pixels)), (339, sample_format))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def reason(content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(content)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 150
    return text


def run_apart(program: str, *arguments: str, timeout_s: float = 120) -> str:
    """Run a program in a process of its own, which may die or take long without taking the tests along."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout_s).stdout
