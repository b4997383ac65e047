"""What the centre crop throws away, and when that is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from folders import invented_pictures

from foldertune.diagnosis.findings import Asked, by_importance
from foldertune.diagnosis.framing import LEAST_SHOWN, area_shown, framing_findings, is_lossy
from foldertune.preprocess import Preprocess
from foldertune.records import Finding, Interval, Picture

ASKED = Asked(Path("photos"))
WHOLE = Preprocess(crop_fraction=1.0)


def pictures_of(**sizes: tuple[int, int]) -> list[Picture]:
    pictures = invented_pictures(dict.fromkeys(sizes, 3))
    return [replace(each, width=sizes[each.label][0], height=sizes[each.label][1]) for each in pictures]


def found(
    pictures: list[Picture], preprocess: Preprocess = WHOLE, gains: dict[str, Interval] | None = None
) -> list[Finding]:
    return list(by_importance(framing_findings(pictures, preprocess, gains=gains, asked=ASKED)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "fraction", "shown"),
    [((400, 300), 1.0, 0.75), ((300, 400), 1.0, 0.75), ((1600, 900), 1.0, 0.5625), ((500, 500), 0.875, 0.765625), ((300, 100), 0.9, 0.27)],
)  # fmt: skip
def test_area_shown_is_that_of_the_square(size: tuple[int, int], fraction: float, shown: float) -> None:
    picture = Picture(0, "a", "a", width=size[0], height=size[1])
    assert area_shown(picture, Preprocess(crop_fraction=fraction)) == pytest.approx(shown)
    for fit in ("squash", "letterbox"):
        assert area_shown(picture, Preprocess(fit=fit, crop_fraction=fraction)) == 1.0


def test_crop_loss_is_told_of_wide_pictures_and_not_of_usual_photographs() -> None:
    assert LEAST_SHOWN == 0.65
    assert found(pictures_of(a=(400, 300), b=(500, 500))) == []
    (finding,) = found(pictures_of(a=(400, 300), b=(1600, 900), c=(300, 100)))
    assert [(row.path, row.note) for row in finding.evidence] == [
        ("c", "33% of each picture is seen"), ("b", "56% of each picture is seen"),
    ]  # fmt: skip
    assert finding.sentence == (
        "The centre crop shows 33% of each picture of 'c', and little of 1 other class. Letterbox and squash show all of it; which "
        "one is better was not tried here."
    )
    assert (finding.severity, finding.remedy) == ("warning", "foldertune train photos --fit letterbox")
    assert finding.score == finding.evidence[0].score == pytest.approx(0.667)


def test_crop_loss_does_not_count_what_the_margin_of_the_crop_takes_from_every_picture() -> None:
    photographs = pictures_of(a=(400, 300))
    for fraction in (1.0, 0.875, 0.7):
        assert not is_lossy(photographs, Preprocess(crop_fraction=fraction))
    assert is_lossy(pictures_of(a=(1600, 900)), Preprocess(crop_fraction=0.875))


def test_crop_loss_where_nothing_is_cropped_is_none() -> None:
    assert found(pictures_of(a=(300, 100)), Preprocess(fit="squash")) == []
    assert not is_lossy(pictures_of(a=(300, 100)), Preprocess(fit="letterbox"))


def test_crop_loss_that_was_tried_tells_what_was_measured() -> None:
    wide = pictures_of(a=(300, 100))
    (better,) = found(wide, gains={"squash": Interval(0.02, -0.01, 0.05), "letterbox": Interval(0.06, 0.03, 0.09)})
    assert (better.severity, better.remedy) == ("serious", "foldertune train photos --fit letterbox")
    assert "letterbox is better by +6.0 (+3.0 to +9.0) points of accuracy." in better.sentence
    (no,) = found(wide, gains={"squash": Interval(0.01, -0.02, 0.04), "letterbox": Interval(0.0, -0.03, 0.03)})
    assert (no.severity, no.remedy) == ("note", "foldertune train photos --fit crop")
    assert "no difference shown (squash +1.0 (-2.0 to +4.0), letterbox +0.0 (-3.0 to +3.0) points)." in no.sentence
