"""Findings on single files: made pictures that have one fault each, read as a folder is, and good ones that have none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT
from picture_files import png, saved
from PIL import Image, ImageFilter

from foldertune.data.folder import scan
from foldertune.data.glances import Glanced
from foldertune.diagnosis.files import HUGE_PIXELS, Seen, file_findings
from foldertune.diagnosis.findings import Asked, by_importance
from foldertune.images import FileFacts
from foldertune.records import Finding, Light, Picture, finish

ASKED = Asked(Path("photos"))
ORIENTATION = 0x0112


def photograph(number: int, size: tuple[int, int] = (300, 260)) -> Image.Image:
    random = np.random.default_rng(number)
    whole = np.zeros((size[1], size[0], 3))
    for side in (4, 9, 30, 250):
        noise = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
        whole += np.asarray(noise.resize(size, Image.Resampling.BICUBIC), np.float64) / 4
    return Image.fromarray((2 * whole - 128).clip(0, 255).astype(np.uint8))


def shaded(image: Image.Image, change: Callable[[int], float]) -> bytes:
    return saved(image.point(lambda value: round(change(value))), "PNG")


def turned() -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return saved(photograph(51), "JPEG", exif=exif)


def sixteen_bits() -> bytes:
    values = np.asarray(photograph(52)).astype(np.uint16) << 8
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(300, 260, bits=16, colour=2, rows=rows)


FAULTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "blank": ("fault.png", lambda: saved(Image.new("RGB", (300, 260), (90, 120, 30)), "PNG")),
    "dark": ("fault.png", lambda: shaded(photograph(53), lambda value: value / 7)),
    "overexposed": ("fault.png", lambda: shaded(photograph(54), lambda value: 220 + value / 8)),
    "blurred": ("fault.png", lambda: saved(photograph(55).filter(ImageFilter.GaussianBlur(9)), "PNG")),
    "grey": ("fault.png", lambda: saved(photograph(56).convert("L"), "PNG")),
    "tiny": ("fault.png", lambda: saved(photograph(57, (260, 100)), "PNG")),
    "huge": ("fault.jpg", lambda: saved(photograph(58, (6000, 4000)), "JPEG")),
    "extreme_shape": ("fault.png", lambda: saved(photograph(59, (720, 240)), "PNG")),
    "wrong_extension": ("fault.jpg", lambda: saved(photograph(60), "PNG")),
    "exif_rotated": ("fault.jpg", turned),
    "sixteen_bit": ("fault.png", sixteen_bits),
    "alpha": ("fault.png", lambda: saved(photograph(61).convert("RGBA"), "PNG")),
    "unreadable": ("fault.png", lambda: saved(photograph(62), "PNG")[:4000]),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for number in range(16):
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        photograph(number).save(folder / "ab"[number % 2] / f"{number}.png")
    return folder


def findings_of(folder: Path) -> dict[str, Finding]:
    glanced: Glanced = {}
    dataset = finish(scan(folder, workers=0, glanced=glanced))
    seen = [Seen(each, glanced[each.sha256].light, glanced[each.sha256].file) for each in dataset.readable]
    found = by_importance(file_findings(seen, dataset.unreadable, image_px=224, asked=ASKED))
    assert len({finding.kind for finding in found}) == len(found)
    return {finding.kind: finding for finding in found}


def test_files_of_good_pictures_have_no_finding(good: Path) -> None:
    assert findings_of(good) == {}


@pytest.mark.parametrize("kind", FAULTS)
def test_files_one_fault_is_found_by_its_name_and_nothing_else_is(good: Path, kind: str) -> None:
    name, make = FAULTS[kind]
    path = good / "a" / name
    path.write_bytes(make())
    try:
        found = findings_of(good)
    finally:
        path.unlink()
    assert set(found) == {kind}
    (row,) = found[kind].evidence
    assert (row.path, row.label) == (f"a/{name}", "a")
    assert row.note
    assert found[kind].sentence.startswith("1 ")
    assert found[kind].score == row.score
    assert found[kind].severity == ("serious" if kind == "unreadable" else found[kind].severity)  # 1 of 17 is 6 %


def test_every_kind_on_files_is_planted_above() -> None:
    source = (PROJECT / "foldertune/diagnosis/files.py").read_text("utf-8")
    assert all(f'"{kind}"' in source for kind in FAULTS)
    assert source.count("_of_pictures(\n") == len(FAULTS) - 1 + 1  # each kind but unreadable; and the function


# --------------------------------------------------------------------------------------------------- without any files

LIGHT = Light(mean=120, spread=50, low=30, high=220, chroma=40, detail=0.8)
JPEG = FileFacts("JPEG", 1000)


def seen_of(*lights: Light, label: str = "a", size: tuple[int, int] = (500, 375)) -> list[Seen]:
    return [
        Seen(
            Picture(row, f"{label}/{row}.jpg", label, width=size[0], height=size[1], sha256=f"{row:064x}"), light, JPEG
        )
        for row, light in enumerate(lights)
    ]


def kinds(seen: list[Seen], unreadable: list[Picture] | None = None, image_px: int = 224) -> dict[str, Finding]:
    return {each.kind: each for each in file_findings(seen, unreadable or [], image_px=image_px, asked=ASKED)}


def test_light_that_is_usual_in_the_folder_is_no_fault() -> None:
    night, white = replace(LIGHT, mean=15, low=2, high=30), replace(LIGHT, mean=240, low=220, high=255)
    grey = replace(LIGHT, chroma=0.5)
    for usual in (night, white, grey):
        assert kinds(seen_of(*[usual] * 6, LIGHT)) == {}
    assert list(kinds(seen_of(LIGHT, LIGHT, LIGHT, night, white, grey))) == ["dark", "overexposed", "grey"]


def test_blurred_is_judged_by_the_detail_of_its_own_class() -> None:
    soft = [replace(LIGHT, detail=0.1)] * 6
    sharp = [replace(LIGHT, detail=1.0)] * 6
    assert kinds([*seen_of(*soft), *seen_of(*sharp, label="b")]) == {}
    (row,) = kinds(seen_of(*sharp, replace(LIGHT, detail=0.1)))["blurred"].evidence
    assert row.note == "10% of the detail that its class usually has"


def test_rows_stand_by_their_strength_and_the_finding_has_the_score_of_the_first() -> None:
    lights = [replace(LIGHT, spread=spread) for spread in (2.0, 0.0, 1.0)]
    blank = kinds(seen_of(*lights, LIGHT))["blank"]
    assert [row.path for row in blank.evidence] == ["a/1.jpg", "a/2.jpg", "a/0.jpg"]
    assert (blank.score, blank.severity) == (1.0, "warning")
    assert blank.remedy.endswith("--write-patch patch.csv")


def test_tiny_pictures_are_grave_from_half_the_side_on() -> None:
    assert kinds(seen_of(LIGHT, size=(223, 400)))["tiny"].severity == "note"
    assert kinds(seen_of(LIGHT, size=(111, 200)))["tiny"].severity == "warning"
    assert kinds(seen_of(LIGHT, size=(224, 224))) == {}


def test_huge_begins_at_its_limit() -> None:
    side = HUGE_PIXELS // 4000
    assert "huge" in kinds(seen_of(LIGHT, size=(side, 4000)))
    assert kinds(seen_of(LIGHT, size=(side - 1, 4000))) == {}


def test_unreadable_files_are_grave_where_they_are_no_accident() -> None:
    broken = [Picture(50 + n, f"a/x{n}.jpg", "a", problem="empty file") for n in range(2)]
    few = kinds(seen_of(*[LIGHT] * 99), broken)["unreadable"]
    assert few.severity == "warning"
    assert few.sentence == (
        "2 files cannot be read and are left out: 2 x empty file. Copy them again from where they came, and look again."
    )
    assert few.remedy == "foldertune look photos"
    assert kinds(seen_of(*[LIGHT] * 9), broken)["unreadable"].severity == "serious"
