"""The decoder on found files: odd, broken and hostile ones of the suites of other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from picture_files import run_apart

from foldertune.images import decode

# -------------------------------------------------------------------------------------------------------- found material

# Everything else in odd-images must decode. Changes with the version of Pillow are looked at, then written here.
REFUSED = {
    "image-rs/bad/bmp/Bad_badbitcount.bmp": "damaged: Unsupported BMP pixel",
    "image-rs/bad/bmp/Bad_clrsUsed.bmp": "damaged: Unsupported BMP Palette",
    "image-rs/bad/bmp/Bad_height.bmp": "too large: more pixels",
    "image-rs/bad/bmp/Bad_reallybig.bmp": "too large: more pixels",
    "image-rs/bad/bmp/Bad_shortfile.bmp": "damaged: image file is",
    "image-rs/bad/bmp/Bad_unusual_extend_buffer_usage.bmp": "damaged: not enough image",
    "image-rs/bad/bmp/Bad_width.bmp": "too large: more pixels",
    "image-rs/bad/ico/Bad_smile-incorrect-image-length.ico": "ICO is not an",
    "image-rs/bad/tiff/TODO hpredict_cmyk.tiff": "damaged, or a kind",
    "image-rs/images/bmp/images/lenient/badpalettesize.bmp": "damaged: Unsupported BMP Palette",
    "image-rs/images/bmp/images/lenient/pal8oversizepal.bmp": "damaged: invalid palette size",
    "image-rs/images/bmp/images/lenient/rgb16-880.bmp": "damaged: Unsupported BMP bitfields",
    "image-rs/images/bmp/images/lenient/rle_overflow.bmp": "damaged: not enough image",
    "image-rs/images/tiff/testsuite/rgb32f_bw.tiff": "damaged, or a kind",
    "image-rs/images/tiff/testsuite/rgb32f_color.tiff": "damaged, or a kind",
    "image-rs/regression/gif/zero-loop-count.gif": "damaged, or a kind",
    "image-rs/regression/ico/crash-981fee302fe0fc543ee48292cc3d6ace7e97e633.ico": "ICO is not an",
    "image-rs/regression/ico/oom-0d0085eb7f66ea55d9119206235cd29e089b9140.ico": "ICO is not an",
    "image-rs/regression/ico/oom-ff076e7064c13ec1f8e2c5bbbfb7a77a08db2361.ico": "ICO is not an",
    "image-rs/regression/jpg/oss-fuzz-36829.jpeg": "damaged: broken data stream",
    "image-rs/regression/tga/bad-color-map.tga": "not a picture, or",
    "image-rs/regression/tga/flip-zero-height.tga": "not a picture, or",
    "image-rs/regression/tga/flip-zero-height2.tga": "not a picture, or",
    "image-rs/regression/tga/orientation-zero-width.tga": "not a picture, or",
    "image-rs/regression/tga/overfull-image.tga": "not a picture, or",
    "image-rs/regression/tga/sixteen-bit-gray-colormap.tga": "not a picture, or",
    "image-rs/regression/tga/sixteen-bit-gray-colormap2.tga": "not a picture, or",
    "image-rs/regression/tga/slice-copy-length.tga": "not a picture, or",
    "libvips/17000x17000.avif": "not a picture, or",
    "libvips/favicon.ico": "ICO is not an",
    "libvips/issue412.jp2": "JPEG 2000 is not",
    "libvips/logo.svg": "XML or SVG is",
    "libvips/truncated.gif": "damaged: image file is",
    "libvips/truncated.jpg": "damaged: image file is",
    "pillow/00r0_gray_l.jp2": "JPEG 2000 is not",
    "pillow/16bit.cropped.jp2": "JPEG 2000 is not",
    "pillow/apng/syntax_num_frames_zero.png": "damaged: cannot load this",
    "pillow/bmp/b/badbitcount.bmp": "damaged: Unsupported BMP pixel",
    "pillow/bmp/b/badwidth.bmp": "too large: more pixels",
    "pillow/bmp/b/reallybig.bmp": "too large: more pixels",
    "pillow/bmp/b/shortfile.bmp": "damaged: image file is",
    "pillow/bmp/q/rgb24jpeg.bmp": "damaged: Unsupported BMP pixel",
    "pillow/broken.png": "damaged, or a kind",
    "pillow/broken_data_stream.png": "damaged: unrecognized data stream",
    "pillow/crash-0c7e0e8e11ce787078f00b5b0ca409a167f070e0.tif": "damaged: decoder error -2",
    "pillow/crash-2020-10-test.tif": "damaged: decoder error -2",
    "pillow/crash-338516dbd2f0e83caddb8ce256c22db3bd6dc40f.tif": "damaged: decoder error -2",
    "pillow/crash-63b1dffefc8c075ddc606c0a2f5fdc15ece78863.tif": "damaged: decoder error -2",
    "pillow/decompression_bomb.gif": "too large: more pixels",
    "pillow/decompression_bomb.ico": "ICO is not an",
    "pillow/hopper.ico": "ICO is not an",
    "pillow/hopper_256x256.ico": "ICO is not an",
    "pillow/libtiff_segfault.tif": "damaged, or a kind",
    "pillow/oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif": "damaged, or a kind",
    "pillow/png_decompression_dos.png": "damaged: Decompressed data too",
    "pillow/seek_too_large.tif": "damaged: Unable to seek",
    "pillow/truncated_end_chunk.png": "damaged: Truncated File Read",
    "pillow/truncated_image.png": "damaged: image file is",
    "pillow/truncated_jpeg.jpg": "damaged: image file is",
    "pillow/ultrahdr.jpg": "damaged: image file is",
    "pillow/unbound_variable.jp2": "JPEG 2000 is not",
    "pillow/unknown_compression_method.png": "damaged, or a kind",
    "pillow/zero_width.gif": "damaged, or a kind",
}


DECODE_ALL = """
    import sys
    from pathlib import Path
    from foldertune.errors import ImageError
    from foldertune.images import decode, read_picture_bytes
    root = Path(sys.argv[1])
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix not in (".md", "") :
            try:
                answer = "x".join(map(str, decode(read_picture_bytes(path), at_least_px=int(sys.argv[2])).shape))
            except ImageError as error:
                answer = str(error)
            print(path.relative_to(root).as_posix(), answer, sep="\\t")
"""


@pytest.fixture(scope="module")
def odd_images(material: Any) -> dict[str, str]:
    folder = material("odd-images")
    lines = run_apart(DECODE_ALL, str(folder), "0").splitlines()
    return dict(line.split("\t", 1) for line in lines)


def test_decode_odd_images_gives_a_picture_or_the_named_reason(odd_images: dict[str, str]) -> None:
    refused = {name: answer for name, answer in odd_images.items() if not answer.endswith("x3")}
    assert len(odd_images) > 200
    assert refused.keys() == REFUSED.keys()
    assert {name: answer for name, answer in refused.items() if not answer.startswith(REFUSED[name])} == {}


def test_decode_odd_images_scaled_refuses_the_same(material: Any) -> None:
    lines = run_apart(DECODE_ALL, str(material("odd-images")), "64").splitlines()
    answers = dict(line.split("\t", 1) for line in lines)
    assert {name for name, answer in answers.items() if not answer.endswith("x3")} == REFUSED.keys()


def test_decode_exif_examples_all_agree(material: Any) -> None:
    folder = material("odd-images/exif-orientation")
    decoded = [decode((folder / f"Portrait_{number}.jpg").read_bytes()).astype(int) for number in range(9)]
    for number, pixels in enumerate(decoded):
        assert pixels.shape == (1800, 1200, 3)
        assert np.abs(pixels - decoded[0]).mean() < 4, number
