"""The part of a report that says how far confidence can be trusted: what it means, and what refusing to answer buys."""

from __future__ import annotations

from collections.abc import Sequence

from foldertune.evaluation.charts import Axis, Chart, Line, Point, draw, side_by_side, value_axis
from foldertune.evaluation.markup import SPACE, between, count, folded, in_words, percent, table
from foldertune.records import Evaluation
from foldertune.scores import Calibration, KeptPromise

Curve = Sequence[tuple[float, float]]  # (share answered, share of these that are wrong)
# Below so small a share the error rests on a handful of pictures, and one of them would set the scale of the chart.
_LEAST_DRAWN = 0.1


def confidence_part(evaluation: Evaluation, curve: Curve) -> str:
    """Both charts with what they say and their numbers; empty where nothing was measured.   curve: of the test pictures."""
    found, promises = evaluation.calibration, evaluation.promises
    said = [calibration_sentence(found) if found else "", answering_sentence(promises) if curve else ""]
    charts = [draw(calibration_chart(found)) if found else "", draw(answering_chart(curve, promises)) if curve else ""]
    tables = [_bins_table(found) if found else "", _promises_table(promises), _curve_table(curve)]
    return "\n".join(
        [*(f"<p>{text}</p>" for text in said if text), side_by_side(charts), *filter(None, tables)]
    ).strip()


def calibration_chart(found: Calibration) -> Chart:
    """A reliability diagram: one point for each bin of confidence, with the interval of its accuracy."""
    bins = tuple(
        Point(
            each.confidence, each.accuracy.value,
            f"confidence {percent(each.confidence)}: {percent(each.accuracy.value)} right of {count(each.num_pictures, 'picture')} "
            f"({between(each.accuracy)})", each.accuracy.low, each.accuracy.high,
        )
        for each in found.bins
    )  # fmt: skip
    lines = (
        Line("as honest as can be", "quiet", (Point(0, 0), Point(1, 1))),
        Line("measured", "strong", bins, joined=False),
    )
    return Chart(
        key="reliability", heading="Share that is right", title="Share of right answers by confidence",
        description=" ".join(f"{point.said[:1].upper()}{point.said[1:]}." for point in bins),
        x=_whole("confidence"), y=_whole(), lines=lines,
    )  # fmt: skip


def answering_chart(curve: Curve, promises: Sequence[KeptPromise]) -> Chart:
    """The error among the answers that are given, the surest first, with the promises where they came out."""
    points = tuple(
        Point(answered, error, f"{percent(answered)} answered: {percent(error)} of these wrong")
        for answered, error in curve
        if answered >= _LEAST_DRAWN or answered == curve[-1][0]
    )
    marks = tuple(
        Point(each.answered.value, each.error.value, _kept(each))
        for each in promises
        if each.threshold is not None and each.error is not None
    )
    lines = (
        Line("by confidence", "strong", points),
        *([Line("promises", "mark", marks, joined=False)] if marks else []),
    )
    ends = f"From {points[0].said} to {points[-1].said}."
    return Chart(
        key="answering", heading="Share of the answers that is wrong", title="Error among the answers by the share answered",
        description=" ".join([ends, *(f"{mark.said}." for mark in marks)]), x=_whole("share of pictures answered"),
        y=value_axis([0.0, *(point.y for point in (*points, *marks))], shares=True), lines=lines,
    )  # fmt: skip


def calibration_sentence(found: Calibration) -> str:
    """How far confidence is from accuracy, and whether that is more than chance."""
    chance = (
        "no more than chance makes of an honest confidence on so many pictures"
        if found.error.value <= found.error_if_perfect
        else "more than chance makes of an honest confidence on so many pictures"
    )
    cooled = (
        f" Before the logits were divided by {found.temperature:.2f}, which validation chose, it was {percent(found.error_before)}."
        if found.temperature is not None and found.error_before is not None and f"{found.temperature:.2f}" != "1.00"
        else ""
    )
    return (
        f"Confidence differs from accuracy by {percent(found.error.value)} in the mean ({between(found.error)}): {chance} "
        f"({percent(found.error_if_perfect)}).{cooled}"
    )


def answering_sentence(promises: Sequence[KeptPromise]) -> str:
    """Which promises there are, and what is refused as unlike."""
    lost = [f"{100 * each.promise:g}{SPACE}%" for each in promises if each.threshold is None]
    made = "Answers that are less sure can be left out; the second chart shows how many of the others are then wrong."
    none = (
        f"An error of {in_words(lost, last='or')} could not be promised from the validation pictures." if lost else ""
    )
    num = max((each.num_unlike for each in promises), default=0)
    looks = "look like nothing that was learned and are" if num > 1 else "looks like nothing that was learned and is"
    unlike = (
        f"{count(num, 'test picture')} {looks} never answered, so the curve ends before 100{SPACE}%." if num else ""
    )
    broken = [_broken(each) for each in promises if each.error is not None and each.error.low > each.promise]
    return " ".join(part for part in (made, none, *broken, unlike) if part)


def _broken(promise: KeptPromise) -> str:
    """That the test pictures, within their interval, do not bear a promise out."""
    assert promise.error is not None
    return (
        f"At most {100 * promise.promise:g}{SPACE}% was promised from the validation pictures and not kept on the test pictures: "
        f"{percent(promise.error.value)} were wrong ({between(promise.error)})."
    )


def _kept(promise: KeptPromise) -> str:
    wrong = percent(promise.error.value) if promise.error else "none"
    return f"At most {100 * promise.promise:g}{SPACE}% promised: {percent(promise.answered.value)} answered, {wrong} of these wrong"


def _whole(title: str = "") -> Axis:
    """An axis of shares from none to all."""
    return Axis(0.0, 1.0, tuple((tick / 100, f"{tick}{SPACE}%") for tick in range(0, 101, 20)), title)


def _bins_table(found: Calibration) -> str:
    rows = [
        [f"{percent(each.low)} to {percent(each.high)}", f"{each.num_pictures:,}", percent(each.confidence),
         percent(each.accuracy.value), between(each.accuracy)]
        for each in found.bins
    ]  # fmt: skip
    head = ["Confidence between", "Pictures", "Mean confidence", "Right", f"95{SPACE}% interval"]
    title = f"Bins of confidence ({len(rows)})"
    return folded(title, table(head, rows, caption="Right answers by confidence", numeric=range(1, 5)))


def _promises_table(promises: Sequence[KeptPromise]) -> str:
    def row(each: KeptPromise) -> list[str]:
        promised = f"{100 * each.promise:g}{SPACE}%"
        if each.threshold is None:
            return [promised, "cannot be promised", "—", "—", "—"]
        wrong = [percent(each.error.value), between(each.error)] if each.error else ["—", "—"]
        return [promised, percent(each.threshold), percent(each.answered.value), *wrong]

    if not promises:
        return ""
    head = ["Wrong at most", "Answered from confidence", "Answered", "Wrong of these", f"95{SPACE}% interval"]
    rows = table(head, map(row, promises), caption="Promised error rates on the test pictures", numeric=range(1, 5))
    return folded(f"Promised error rates ({len(promises)})", rows)


def _curve_table(curve: Curve) -> str:
    rows = [[percent(answered), percent(error)] for answered, error in curve]
    head = ["Answered", "Wrong of these"]
    listed = table(head, rows, caption="Error among the answers", numeric=[1]) if rows else ""
    return folded(f"Points of the curve ({len(rows)})", listed)
