"""The one decoder, row by row of docs/pictures.md: the pixels that are expected."""

from __future__ import annotations

import io
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_files import COLOUR, ORIENTATION, chunk, png, reason, saved, scene, tiff
from PIL import Image, ImageCms, ImageOps

from foldertune import images
from foldertune.images import decode, decode_and_size

# ------------------------------------------------------------------------------------------------- depth, alpha, colour


def test_decode_rgb_gives_the_pixels_unchanged() -> None:
    picture = scene()
    for kind in ("PNG", "BMP", "TIFF"):
        decoded = decode(saved(picture, kind))
        assert decoded.dtype == np.uint8
        assert np.array_equal(decoded, np.asarray(picture)), kind


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_decode_16_bit_grey_ramp_is_scaled_not_clipped(kind: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = decode(saved(Image.fromarray(ramp), kind))
    assert int(decoded.mean()) == 127
    assert np.array_equal(decoded[:, :, 0], ramp >> 8)
    assert (decoded[:, :, 0] == decoded[:, :, 2]).all()


def test_decode_16_bit_big_endian_tiff_gives_the_upper_byte() -> None:
    ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    image = Image.frombytes("I;16B", (16, 16), ramp.astype(">u2").tobytes())
    assert np.array_equal(decode(saved(image, "TIFF"))[:, :, 1], ramp >> 8)


def test_decode_16_bit_tiff_where_white_is_zero_is_inverted() -> None:
    ramp = np.arange(0, 65536, 257, dtype="<u2")
    content = tiff(ramp.tobytes(), 16, 16, bits=16, photometric=0)
    assert np.array_equal(decode(content)[:, :, 0].ravel(), 255 - (ramp >> 8))


def test_decode_12_bit_tiff_reaches_white() -> None:
    packed = bytes.fromhex("fff000800fff")  # the samples 4095, 0, 2048, 4095
    assert decode(tiff(packed, 4, 1, bits=12, photometric=1))[0, :, 0].tolist() == [255, 0, 128, 255]


def test_decode_16_bit_rgb_png_gives_the_upper_byte() -> None:
    values = np.arange(12, dtype=np.uint16).reshape(2, 2, 3) * 5000
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    assert np.array_equal(decode(png(2, 2, bits=16, colour=2, rows=rows)), values >> 8)


def test_decode_16_bit_grey_png_with_transparent_value_shows_the_background() -> None:
    rows = b"\0" + np.array([0x1234, 0x1235, 0xFFFF, 0x0000], ">u2").tobytes()
    content = png(4, 1, bits=16, colour=0, rows=rows, before=chunk(b"tRNS", b"\x12\x34"))
    assert decode(content)[0, :, 0].tolist() == [255, 0x12, 255, 0]


def test_decode_rgba_shows_the_background_through_transparent_parts() -> None:
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[:, 0] = (10, 200, 30, 0)  # hidden green
    rgba[:, 1] = (10, 200, 30, 255)
    rgba[:, 2] = (0, 0, 0, 128)
    expected = [[255, 255, 255], [10, 200, 30], [127, 127, 127]]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        assert decode(saved(Image.fromarray(rgba), kind, **options))[0].tolist() == expected, kind


def test_decode_background_is_the_documented_white() -> None:
    assert images.BACKGROUND == (255, 255, 255)


def test_decode_grey_with_alpha_shows_the_background() -> None:
    pixels = Image.fromarray(np.array([[[9, 0], [9, 255]]], np.uint8), "LA")
    assert decode(saved(pixels, "PNG"))[0, :, 0].tolist() == [255, 9]


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_decode_palette_with_transparency_shows_the_background(kind: str, transparency: int | bytes) -> None:
    if kind == "GIF" and isinstance(transparency, bytes):
        pytest.skip("a GIF names one transparent colour by its number")
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([200, 0, 0, 0, 200, 0])
    decoded = decode(saved(image, kind, transparency=transparency))
    assert decoded[0].tolist() == [[255, 255, 255], [0, 200, 0]]


def test_decode_rgb_with_one_transparent_colour_shows_the_background() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [3, 2, 1]]], np.uint8))
    assert decode(saved(image, "PNG", transparency=(1, 2, 3)))[0].tolist() == [[255, 255, 255], [3, 2, 1]]


def test_decode_one_bit_gives_black_and_white() -> None:
    image = Image.fromarray(np.array([[True, False]]))
    assert decode(saved(image, "PNG"))[0].tolist() == [[255] * 3, [0] * 3]


@pytest.mark.parametrize("inverted", [False, True])
def test_decode_cmyk_jpeg_keeps_its_colours(inverted: bool) -> None:
    cmyk = Image.new("RGB", (32, 32), COLOUR).convert("CMYK")
    content = saved(cmyk, "JPEG", quality=100)  # Pillow writes what Photoshop does: an Adobe marker and inverted inks
    assert b"Adobe" in content
    if not inverted:  # without the marker the inks mean what they say, so they are inverted here instead
        start = content.index(b"\xff\xee")
        size = 2 + int.from_bytes(content[start + 2 : start + 4], "big")
        plain = saved(cmyk.point(lambda value: 255 - value), "JPEG", quality=100)
        content = plain[:start] + plain[start + size :]
        assert b"Adobe" not in content
    assert np.abs(decode(content).mean((0, 1)) - COLOUR).max() < 2


def test_decode_colour_profile_is_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with_profile = saved(scene(), "PNG", icc_profile=profile)
    assert b"iCCP" in with_profile
    assert np.array_equal(decode(with_profile), np.asarray(scene()))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_decode_32_bit_pixels_are_refused_with_the_way_out(mode: str) -> None:
    text = reason(saved(Image.new(mode, (4, 4), 7), "TIFF"))
    assert text.startswith("pixels are 32-bit")
    assert "8 or 16 bits" in text


# ------------------------------------------------------------------------------------------------------------ orientation


def turned_away(upright: Image.Image, orientation: int) -> Image.Image:
    """What a camera stores so that `orientation` brings the upright picture back. Written from CIPA DC-008, not from our table:

    1 as it is, 2 mirrored, 3 turned by 180, 4 upside down, 5 to 8 with rows and columns exchanged.
    """
    pixels = np.asarray(upright)
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, 1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, -1),
    }
    return Image.fromarray(np.ascontiguousarray(stored[orientation]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_exif_orientation_gives_the_upright_picture(orientation: int, kind: str) -> None:
    stored = turned_away(scene(), orientation)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options: dict[str, dict[str, Any]] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    content = saved(stored, kind, exif=exif, **options.get(kind, {}))
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), decode(content))
    decoded, size = decode_and_size(content)
    assert size == (60, 40)
    assert np.abs(decoded.astype(int) - np.asarray(scene())).max() <= (8 if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_and_size_scaled_and_turned_names_the_whole_picture(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = saved(turned_away(scene(1200, 801), orientation), "JPEG", exif=exif)
    decoded, size = decode_and_size(content, at_least_px=100)
    assert size == (1200, 801)
    assert decoded.shape == (101, 150, 3)


@pytest.mark.parametrize("value", [0, 9, 60000])
def test_decode_meaningless_orientation_changes_nothing(value: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    assert np.array_equal(decode(saved(scene(), "PNG", exif=exif)), np.asarray(scene()))


def test_decode_cyclic_exif_is_no_reason_to_refuse_or_to_hang() -> None:
    entries = [
        struct.pack("<HHII", 0x8769, 4, 1, 8),
        struct.pack("<HHII", 0x8825, 4, 1, 8),
    ]  # both lead back to the start
    cyclic = b"II*\0" + struct.pack("<IH", 8, 2) + b"".join(entries) + struct.pack("<I", 8)
    content = saved(scene(), "JPEG", exif=b"Exif\0\0" + cyclic.ljust(64_000, b"\0"))
    assert decode(content).shape == (40, 60, 3)


@given(st.binary(max_size=300))
def test_decode_any_exif_leaves_the_pixels(exif: bytes) -> None:
    content = saved(Image.new("RGB", (8, 8), COLOUR), "JPEG", exif=b"Exif\0\0" + exif)
    assert decode(content).shape == (8, 8, 3)


# ------------------------------------------------------------------------------------------------------------- animations


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_decode_animation_gives_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(content)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert (decode(content) == (250, 0, 0)).all()


def test_decode_mpo_gives_the_first_picture() -> None:
    content = saved(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (60, 40))])
    assert np.abs(decode(content).astype(int) - np.asarray(scene())).mean() < 4


# ------------------------------------------------------------------------------------------------------- scaled decoding


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 300))
def test_decode_scaled_keeps_the_shorter_side(width: int, height: int, at_least_px: int) -> None:
    content = saved(Image.new("RGB", (width, height), COLOUR), "JPEG")
    decoded, size = decode_and_size(content, at_least_px=at_least_px)
    assert size == (width, height)
    assert min(decoded.shape[:2]) >= min(at_least_px, width, height)
    assert max(decoded.shape[:2]) <= max(width, height)


def test_decode_scaled_stays_close_to_full_decoding() -> None:
    picture = scene(1600, 1200)
    content = saved(picture, "JPEG", quality=95)
    small = decode(content, at_least_px=150)
    assert small.shape == (150, 200, 3)
    full = np.asarray(Image.fromarray(decode(content)).resize((200, 150), Image.Resampling.BOX))
    assert np.abs(small.astype(int) - full).max() <= 2


def test_decode_png_is_never_scaled() -> None:
    assert decode(saved(scene(640, 480), "PNG"), at_least_px=10).shape == (480, 640, 3)


def test_decode_from_four_threads_gives_the_same() -> None:
    contents = [saved(scene(300 + 7 * number, 200), "JPEG") for number in range(8)]
    contents += [saved(scene(100 + number, 90), kind) for number, kind in enumerate(("PNG", "WEBP", "GIF", "AVIF"))]
    expected = [decode(content).tobytes() for content in contents]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert [pixels.tobytes() for pixels in pool.map(decode, contents)] == expected


def test_decode_twice_gives_the_same_bytes() -> None:
    content = saved(scene(), "JPEG")
    assert decode(content).tobytes() == decode(content).tobytes()


# -------------------------------------------------------------------------------------------------- what the file says


MAKER, MODEL, TAKEN, FRACTION, DIGITISED, EXIF_IFD, GPS_IFD = 0x010F, 0x0110, 0x9003, 0x9291, 0x9004, 0x8769, 0x8825


def exif_of(tags: dict[int, Any], inner: dict[int, Any] | None = None, place: dict[int, Any] | None = None) -> Any:
    exif = Image.Exif()
    exif.update(tags)
    exif.get_ifd(EXIF_IFD).update(inner or {})
    exif.get_ifd(GPS_IFD).update(place or {})
    return exif


def facts_of(content: bytes) -> images.FileFacts:
    pixels, size, facts = images.decode_with_facts(content)
    assert np.array_equal(pixels, decode(content))
    assert size == decode_and_size(content)[1]
    assert facts.num_bytes == len(content)
    return facts


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_facts_name_the_format_by_the_content(kind: str) -> None:
    content = saved(scene(), kind)
    assert facts_of(content) == images.FileFacts(kind, len(content))


def test_facts_call_a_file_of_several_pictures_jpeg() -> None:
    assert facts_of(saved(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (60, 40))])).format == "JPEG"


def test_facts_of_16_bits_are_told_even_where_pillow_reads_8() -> None:
    grey = saved(Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256)), "PNG")
    rgb = png(2, 2, bits=16, colour=2, rows=b"".join(b"\0" + bytes(12) for _ in range(2)))
    rgba = png(2, 2, bits=16, colour=6, rows=b"".join(b"\0" + bytes(16) for _ in range(2)))
    big_endian = saved(Image.frombytes("I;16B", (16, 16), bytes(512)), "TIFF")
    assert [facts_of(content).bits for content in (grey, rgb, rgba, big_endian)] == [16] * 4
    assert [facts_of(saved(scene(), kind)).bits for kind in ("PNG", "TIFF", "JPEG")] == [8] * 3
    assert facts_of(saved(Image.fromarray(np.array([[True, False]])), "PNG")).bits == 8  # as it is read


def test_facts_tell_whether_parts_can_be_transparent() -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([200, 0, 0, 0, 200, 0])
    clear = [
        saved(Image.new("RGBA", (4, 4)), "PNG"),
        saved(Image.new("LA", (4, 4)), "PNG"),
        saved(palette, "PNG", transparency=0),
        saved(palette, "GIF", transparency=1),
    ]
    opaque = [saved(palette, "PNG"), saved(scene(), "PNG"), saved(scene(), "JPEG")]
    assert [facts_of(content).transparent for content in clear] == [True] * 4
    assert [facts_of(content).transparent for content in opaque] == [False] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_facts_tell_the_orientation_as_it_is_stored(orientation: int) -> None:
    content = saved(turned_away(scene(), orientation), "JPEG", exif=exif_of({ORIENTATION: orientation}))
    assert facts_of(content).orientation == orientation


@pytest.mark.parametrize(
    ("tags", "camera"),
    [({MAKER: "Canon", MODEL: "Canon EOS 5D"}, "Canon EOS 5D"), ({MAKER: "NIKON", MODEL: "D40"}, "NIKON D40"),
     ({MODEL: "D40"}, "D40"), ({MAKER: "NIKON"}, "NIKON"), ({}, ""), ({MAKER: " A \0\n B ", MODEL: "C"}, "A B C"),
     ({MAKER: "m" * 300, MODEL: "x" * 300}, "m" * 40 + " " + "x" * 40)],
)  # fmt: skip
def test_facts_name_the_camera_once_and_shortly(tags: dict[int, str], camera: str) -> None:
    assert facts_of(saved(scene(), "JPEG", exif=exif_of(tags))).camera == camera


def test_facts_tell_when_it_was_taken_with_the_fraction_and_not_when_it_was_written() -> None:
    def taken(inner: dict[int, str], outer: dict[int, str] | None = None) -> float | None:
        return facts_of(saved(scene(), "JPEG", exif=exif_of(outer or {}, inner))).taken_s

    plain = taken({TAKEN: "2024:02:29 23:59:59"})
    assert plain is not None
    assert taken({TAKEN: "2024:03:01 00:00:01"}) == plain + 2  # over a leap day
    assert taken({TAKEN: "2024:02:29 23:59:59", FRACTION: "25"}) == plain + 0.25
    assert taken({TAKEN: "2024:02:29 23:59:59", FRACTION: "075 "}) == plain + 0.075
    assert taken({TAKEN: "2024:02:29 23:59:59", FRACTION: "x"}) == plain
    for nonsense in ("    :  :     :  :  ", "0000:00:00 00:00:00", "2024-02-29", "", "2024:02:30 00:00:00"):
        assert taken({TAKEN: nonsense}) is None, nonsense
    assert taken({DIGITISED: "2024:02:29 23:59:59"}, {0x0132: "2024:02:29 23:59:59"}) is None


def test_facts_of_damaged_exif_are_those_that_can_be_read_and_the_picture_is_read() -> None:
    entries = [struct.pack("<HHII", 0x010F, 2, 6, 0x7FFF), struct.pack("<HHII", 0x8769, 4, 1, 0x7FFFFFF)]
    broken = b"II*\0" + struct.pack("<IH", 8, 2) + b"".join(entries) + struct.pack("<I", 0)
    content = saved(scene(), "JPEG", exif=b"Exif\0\0" + broken)
    assert facts_of(content) == images.FileFacts("JPEG", len(content))


@given(st.binary(max_size=200))
def test_facts_of_any_exif_have_their_types(exif: bytes) -> None:
    facts = facts_of(saved(Image.new("RGB", (8, 8), COLOUR), "JPEG", exif=b"Exif\0\0" + exif))
    assert isinstance(facts.camera, str)
    assert len(facts.camera) <= 81
    assert facts.taken_s is None or np.isfinite(facts.taken_s)


def test_facts_never_read_where_a_picture_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    place = {1: "N", 2: (52.0, 31.0, 12.125), 3: "E", 4: (13.0, 24.0, 18.5)}
    content = saved(scene(), "JPEG", exif=exif_of({MAKER: "NIKON"}, {TAKEN: "2024:02:29 23:59:59"}, place))
    with Image.open(io.BytesIO(content)) as image:
        assert image.getexif().get_ifd(GPS_IFD)[2] == place[2]  # it is there
    asked: list[int] = []
    real = Image.Exif.get_ifd

    def get_ifd(exif: Any, tag: int) -> Any:
        asked.append(tag)
        return real(exif, tag)

    monkeypatch.setattr(Image.Exif, "get_ifd", get_ifd)
    facts = facts_of(content)
    assert set(asked) == {EXIF_IFD}
    assert facts.camera == "NIKON"
    assert facts.taken_s is not None
    assert not any(part in repr(facts) for part in ("52.", "13.", "12.125", "18.5"))
