"""An evaluation in words for a terminal: accuracy first, then how far confidence can be trusted, then the classes."""

from __future__ import annotations

from collections.abc import Iterator

from foldertune.scores import Calibration, ClassScore, Evaluation, Interval, KeptPromise, TwoClasses
from foldertune.terminal import between, printable

SHOWN_PROMISE = 0.05  # the one that `predict` keeps by itself
_NAMES = {"default": "as answered", "sensitive": "sensitive", "balanced": "balanced"}


def evaluation_lines(found: Evaluation) -> Iterator[str]:
    """Line by line. What an older run did not measure is left out."""
    yield f"{found.num_pictures:,} pictures ({found.split})"
    if found.left_out:
        yield f"Left out     {len(found.left_out):,} that the model was trained or chosen by"
    yield f"Accuracy     {between(found.accuracy)}"
    if found.without_leaks is not None:
        yield f"             {between(found.without_leaks)} without the {found.num_leaked:,} that are also in another split"
    if found.cross_validation is not None:
        again = found.cross_validation
        folds = f"{again.num_repeats} x {again.num_folds} folds of {again.num_pictures:,} pictures"
        yield f"             {between(again.accuracy)} of the head alone, cross-validated: {folds}"
    if found.top5 is not None:
        yield f"Top 5        {between(found.top5_interval) if found.top5_interval else format(found.top5, '.1%')}"
    yield f"Macro F1     {_figure(found.macro_f1, found.macro_f1_interval)}"
    yield f"Log loss     {_figure(found.log_loss, found.log_loss_interval)}"
    if found.macro_auc is not None:
        yield f"AUC          {_figure(found.macro_auc.value, found.macro_auc)}{_each_class(found)}"
    if found.calibration is not None:
        yield f"Calibration  {calibration_words(found.calibration)}"
    for promise in found.promises:
        if promise.promise == SHOWN_PROMISE:
            yield f"Unknown      {promise_words(promise, found.num_pictures)}"
    if found.two_classes is not None:
        yield from _two_classes(found.two_classes)
    yield ""
    yield from _classes(found)
    if confusions := _confusions(found):
        yield ""
        yield "Most often confused:"
    for i, j, count in confusions:
        yield f"  {found.classes[i]} was answered as {found.classes[j]} {_times(count)}"


def calibration_words(found: Calibration) -> str:
    """Whether confidence can be taken at its word, in one line."""
    honest = found.error.value <= found.error_if_perfect
    judged = "within" if honest else "more than"
    before = ""
    if found.error_before is not None and found.temperature is not None:
        before = f"; {found.error_before:.1%} before the temperature {found.temperature:.2f}"
    return (
        f"confidence is {found.error.value:.1%} off accuracy (95% interval {found.error.low:.1%} to {found.error.high:.1%}), "
        f"{judged} the {found.error_if_perfect:.1%} that chance alone makes{before}"
    )


def promise_words(found: KeptPromise, num_pictures: int) -> str:
    """What is answered under a promise, and what it is worth, in one line."""
    promise, refused = f"at most {found.promise:.0%} wrong", num_pictures - round(found.answered.value * num_pictures)
    words = f"{refused:,} are refused"
    if found.num_unlike:
        words += f", {found.num_unlike:,} of them as unlike what was learned"
    if found.threshold is None:
        few = f"{promise} cannot be promised from so few validation pictures"
        return f"{few}; {words}" if refused else f"{few}: all are answered"
    if found.error is None:
        return f"promised {promise}: none would be answered"
    if found.error.low > found.promise:
        words += ". The promise is broken: these pictures are harder than those of validation"
    return (
        f"promised {promise}: {found.answered.value:.1%} are answered and {found.error.value:.1%} of these are wrong "
        f"(95% interval {found.error.low:.1%} to {found.error.high:.1%}); {words}"
    )


def _figure(value: float, interval: Interval | None) -> str:
    words = "" if interval is None else f" (95% interval {interval.low:.3f} to {interval.high:.3f})"
    return f"{value:.3f}{words}"


def _each_class(found: Evaluation) -> str:
    return ", the mean of each class against the others" if len(found.classes) > 2 else ""


def _two_classes(found: TwoClasses) -> Iterator[str]:
    yield ""
    yield f"Asked whether a picture is {found.positive}, sensitivity and specificity with 95% intervals:"
    for point in found.points:
        chosen = ", chosen on validation" if point.chosen_on else ""
        told = f"{_NAMES.get(point.name, point.name)} (from {point.threshold:.3f} on{chosen})"
        yield f"  {told:<48}  {_short(point.sensitivity)}  {_short(point.specificity)}"


def _short(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _classes(found: Evaluation) -> Iterator[str]:
    width = max(5, *(len(printable(score.label)) for score in found.per_class))
    measured = any(score.recall_interval for score in found.per_class)
    if not measured:
        yield f"{'class':<{width}}  precision  recall     F1  pictures"
    else:
        yield f"{'class':<{width}}  {'precision (95% interval)':<24}  {'recall (95% interval)':<22}     F1  pictures"
    for score in found.per_class:
        figures = f"{score.f1:5.3f}  {score.num_pictures:8,}"
        if measured:
            yield f"{printable(score.label):<{width}}  {_precision(score):<24}  {_recall(score):<22}  {figures}"
        else:
            yield f"{printable(score.label):<{width}}  {score.precision:9.3f}  {score.recall:6.3f}  {figures}"


def _precision(score: ClassScore) -> str:
    return _short(score.precision_interval) if score.precision_interval else "never answered"


def _recall(score: ClassScore) -> str:
    return _short(score.recall_interval) if score.recall_interval else "no picture"


def _confusions(found: Evaluation) -> list[tuple[int, int, int]]:
    """The three most frequent confusions."""
    cells = [(i, j, count) for i, row in enumerate(found.confusion) for j, count in enumerate(row) if i != j and count]
    return sorted(cells, key=lambda cell: (-cell[2], cell[0], cell[1]))[:3]


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")
