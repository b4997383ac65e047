"""What the decoder refuses, with which reason, and that no file makes it hang, grow or start anything."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_files import COLOUR, chunk, flat_png, png, reason, run_apart, saved, scene
from PIL import Image

from foldertune import images
from foldertune.errors import ImageError, SettingsError
from foldertune.images import EXTENSIONS, MOST_SCANS, decode, is_picture_name, read_picture_bytes

# --------------------------------------------------------------------------------------------------------- damaged, lying


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_decode_cut_short_is_refused_never_half_grey(kind: str, share: float) -> None:
    noise = np.random.Generator(np.random.Philox(0)).integers(0, 256, (64, 64, 3), np.uint8)
    content = saved(Image.fromarray(noise), kind)
    decode(content)
    assert reason(content[: int(share * len(content))]).startswith(("damaged", "not a picture"))


def test_decode_cut_short_and_scaled_is_refused() -> None:
    content = saved(scene(1000, 1000), "JPEG")
    with pytest.raises(ImageError, match="truncated"):
        decode(content[: int(0.6 * len(content))], at_least_px=100)


def test_decode_empty_is_refused() -> None:
    assert reason(b"") == "empty file"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"just a note about a picture\n", "not a picture"),
        (b"\0" * 1000, "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "PostScript is not an accepted format"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "SVG is not an accepted format"),
        (b'<?xml version="1.0"?><svg/>', "XML or SVG is not an accepted format"),
        (b"%PDF-1.7\n", "PDF is not an accepted format"),
        (b"8BPS\0\1" + bytes(20), "Photoshop is not an accepted format"),
        (b"<!DOCTYPE html><p>404", "HTML is not an accepted format"),
        (b"PK\x03\x04" + bytes(30), "ZIP is not an accepted format"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(30), "JPEG 2000 is not an accepted format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_decode_other_content_is_refused_by_its_name(content: bytes, expected: str) -> None:
    assert reason(content).startswith(expected)


def test_decode_postscript_never_starts_a_process_or_loads_its_plugin() -> None:
    program = """
        import sys
        started = []
        sys.addaudithook(lambda name, _: started.append(name) if name in ("subprocess.Popen", "os.system", "os.exec",
                         "os.posix_spawn", "os.fork", "os.spawn") else None)
        from foldertune.errors import ImageError
        from foldertune.images import decode
        for beginning in (b"%!PS-Adobe-3.0 EPSF-3.0\\n", b"\\xc5\\xd0\\xd3\\xc6" + bytes(26) + b"%!PS-Adobe-3.0 EPSF-3.0\\n"):
            try:
                decode(beginning + b"%%BoundingBox: 0 0 10 10\\n%%EndComments\\nshowpage\\n%%EOF\\n")
            except ImageError as error:
                print(error)
        print(started, "PIL.EpsImagePlugin" in sys.modules)
    """
    lines = run_apart(program).splitlines()
    assert lines[0] == "PostScript is not an accepted format"
    assert lines[1].startswith("not a picture")
    assert lines[2] == "[] False"


def test_decode_png_name_with_tiff_content_opens_by_content(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(saved(scene(), "TIFF"))
    assert np.array_equal(decode(read_picture_bytes(path)), np.asarray(scene()))


def test_decode_polyglot_gives_the_picture() -> None:
    content = saved(scene(), "JPEG")
    polyglot = content + b"<html><script>alert(1)</script></html>PK\x03\x04" + b"\xff\xda" * (MOST_SCANS + 1)
    assert np.array_equal(decode(polyglot), decode(content))


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (3, 2)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_decode_extreme_shapes_are_pictures(size: tuple[int, int], kind: str) -> None:
    content = saved(Image.new("RGB", size, COLOUR), kind)
    for at_least_px in (0, 2, 512):
        assert decode(content, at_least_px=at_least_px).shape == (size[1], size[0], 3)


# ----------------------------------------------------------------------------------------------------------------- bombs


PEAK = """
    import resource, sys
    from pathlib import Path
    import PIL.Image
    from foldertune.errors import ImageError
    from foldertune.images import decode
    try:
        decode(b"GIF89a")
    except ImageError:
        pass
    content = Path(sys.argv[1]).read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        print(decode(content).shape)
    except ImageError as error:
        print(error)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage")
@pytest.mark.parametrize(("side", "megapixels"), [(9_000, "81"), (15_000, "225"), (30_000, "900")])
def test_decode_bomb_is_refused_from_the_header_in_bounded_memory(tmp_path: Path, side: int, megapixels: str) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(flat_png(side, side))
    assert path.stat().st_size < 200_000
    text, grown = run_apart(PEAK, str(path)).splitlines()
    assert text.startswith("too large")
    assert "64" in text
    assert int(grown) < (8 * 1024 if sys.platform != "darwin" else 8 * 2**20)  # KiB, on macOS bytes
    if megapixels != "900":  # from 179 megapixels on Pillow refuses first, with its own number
        assert megapixels in text or "more pixels than the limit" in text


def test_decode_lying_header_is_refused() -> None:
    content = png(2**31 - 1, 2**31 - 1, bits=8, colour=2, rows=b"\0" * 100)
    assert reason(content).startswith("too large")
    short = png(1000, 1000, bits=8, colour=2, rows=b"\0" * 100)
    assert reason(short).startswith("damaged")
    jpeg = bytearray(saved(scene(), "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 65500, 65500)
    assert reason(bytes(jpeg)).startswith("too large")


def test_decode_gif_with_a_frame_beyond_its_screen_is_bounded() -> None:
    content = bytearray(saved(Image.new("P", (4, 4)), "GIF"))
    place = content.index(b",\0\0\0\0") + 5
    content[place : place + 4] = struct.pack("<HH", 65535, 65535)
    assert reason(bytes(content)).startswith(("too large", "damaged"))


def progressive(num_scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    content = saved(scene(64, 64), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * num_scans + content[-2:]


def test_decode_jpeg_of_thousands_of_scans_is_refused() -> None:
    assert reason(progressive(10_000)) == f"damaged: a JPEG of more than {MOST_SCANS} scans"


def test_decode_jpeg_of_the_usual_scans_is_a_picture() -> None:
    assert decode(saved(scene(), "JPEG", progressive=True)).shape == (40, 60, 3)


def test_decode_jpeg_with_a_film_behind_it_is_a_picture() -> None:
    content = saved(scene(), "JPEG")
    film = b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\x0c" * 1000  # what phones append to a photograph
    note = b"\xff\xe5" + struct.pack(">H", 2 + 2 * 400) + b"\xff\xda" * 400  # and a maker's note in its header
    assert np.array_equal(decode(content + film), decode(content))
    assert np.array_equal(decode(content[:2] + note + content[2:] + film), decode(content))


def test_decode_png_with_many_texts_is_a_picture_or_refused() -> None:
    texts = chunk(b"tEXt", b"Comment\0hello") * 100_000
    content = png(2, 1, bits=8, colour=0, rows=b"\0\x05\x06", before=texts)
    assert decode(content)[0, :, 0].tolist() == [5, 6]
    inflated = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000)))
    assert reason(png(2, 1, bits=8, colour=0, rows=b"\0\x05\x06", before=inflated)).startswith("damaged")


# ------------------------------------------------------------------------------------------------------------- the limit


def test_most_pixels_from_the_environment_is_kept_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(Image.new("L", (1000, 1000)), "PNG")
    monkeypatch.setenv("FOLDERTUNE_MAX_MEGAPIXELS", "0.5")
    assert reason(content) == "too large: 1000 x 1000 is 1 megapixels, the limit is 0.5"
    monkeypatch.setenv("FOLDERTUNE_MAX_MEGAPIXELS", "1")
    assert decode(content).shape == (1000, 1000, 3)
    monkeypatch.delenv("FOLDERTUNE_MAX_MEGAPIXELS")
    assert images.most_pixels() == 64_000_000


def test_most_pixels_above_pillows_own_limit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setenv("FOLDERTUNE_MAX_MEGAPIXELS", "0.01")
    content = saved(Image.new("L", (100, 100)), "PNG")
    assert decode(content).shape == (100, 100, 3)
    monkeypatch.setenv("FOLDERTUNE_MAX_MEGAPIXELS", "0.009")
    assert reason(content).startswith("too large: 100 x 100")


@pytest.mark.parametrize("given_limit", ["many", "0", "-3", "nan", "inf", "10001"])
def test_most_pixels_of_no_use_is_a_settings_error(monkeypatch: pytest.MonkeyPatch, given_limit: str) -> None:
    monkeypatch.setenv("FOLDERTUNE_MAX_MEGAPIXELS", given_limit)
    sentence = f"FOLDERTUNE_MAX_MEGAPIXELS is '{given_limit}'. Accepted: a number above 0, up to 10000."
    with pytest.raises(SettingsError) as caught:
        decode(saved(scene(), "PNG"))
    assert str(caught.value) == sentence


@given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]), st.integers(0, 400))
def test_decode_damaged_anywhere_gives_a_picture_or_a_reason(noise: bytes, kind: str, place: int) -> None:
    content = bytearray(saved(scene(16, 12), kind))
    content[place : place + len(noise)] = noise
    with contextlib.suppress(ImageError):  # anything else fails the test
        decoded = decode(bytes(content))
        assert decoded.ndim == 3
        assert decoded.dtype == np.uint8


# ----------------------------------------------------------------------------------------------------- names and reading


@pytest.mark.parametrize("extension", sorted(EXTENSIONS))
def test_is_picture_name_in_any_case(extension: str) -> None:
    assert is_picture_name(f"a{extension}")
    assert is_picture_name(f"A.B{extension.upper()}")


@pytest.mark.parametrize(
    "name", ["a", "a.txt", ".jpg", "a.jpg.txt", "a.svg", "a.pdf", "a.ico", "a.jp2", "jpg", "a.jpg~"]
)
def test_is_picture_name_of_others_is_false(name: str) -> None:
    assert not is_picture_name(name)


def test_read_picture_bytes_absent_or_folder_gives_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="the file is not there"):
        read_picture_bytes(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match=r"not a regular file|cannot be read"):
        read_picture_bytes(tmp_path)
    with pytest.raises(ImageError, match=r"cannot be read|the file is not there"):
        read_picture_bytes(tmp_path / "a\0b.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_read_picture_bytes_pipe_and_device_are_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero")):
        with pytest.raises(ImageError, match="not a regular file"):
            read_picture_bytes(path)


def test_read_picture_bytes_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    with path.open("wb") as stream:
        stream.truncate(images.MOST_BYTES + 1)  # a hole: it takes no space
    with pytest.raises(ImageError, match="too large: 512 MiB, the limit is 512"):
        read_picture_bytes(path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_read_picture_bytes_inside_does_not_follow_links_out(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (folder / "here.jpg").write_bytes(b"here")
    (folder / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "in.jpg").symlink_to("here.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "away").symlink_to(tmp_path)
    assert read_picture_bytes(folder / "in.jpg", inside=folder) == b"here"
    assert read_picture_bytes(folder / "out.jpg") == b"secret"
    for name in ("out.jpg", "away/secret.jpg"):
        with pytest.raises(ImageError, match="link that leads outside"):
            read_picture_bytes(folder / name, inside=folder)
    with pytest.raises(ImageError, match="cannot be read"):
        read_picture_bytes(folder / "loop.jpg", inside=folder)


def test_decode_reason_never_holds_metadata() -> None:
    exif = Image.Exif()
    exif[0x010E] = "GPS 52.5200 13.4050"
    content = saved(scene(), "JPEG", exif=exif)
    assert "52.52" not in reason(content[: len(content) - 200])
