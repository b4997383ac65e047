"""An evaluation whole: every figure with its interval, calibration, promises, and what is taken for what. Pure, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foldertune.evaluation.calibration import (
    expected_calibration_error,
    perfect_calibration_quantile,
    reliability_bins,
)
from foldertune.evaluation.intervals import (
    area,
    area_interval,
    grouped_share,
    loss_interval,
    mean_area_interval,
    mirrored_interval,
    resample,
    share_interval,
)
from foldertune.evaluation.metrics import Floats, Integers, among_best, evaluate_probabilities
from foldertune.evaluation.refusal import kept_promises
from foldertune.evaluation.standards import Standards
from foldertune.evaluation.two_classes import two_classes
from foldertune.records import Picture
from foldertune.scores import Calibration, ClassScore, ConfusedPair, Evaluation, Interval

MOST_PAIRS = 50
MOST_ROWS = 200  # of a confused pair; num_pictures tells of all


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers for some pictures. probabilities (N, K), labels (N,).

    raw: (N, K), before the temperature.   unlike: (N,), pictures that resemble nothing that was learned.
    """

    probabilities: Floats
    labels: Integers
    pictures: Sequence[Picture] = ()
    raw: Floats | None = None
    unlike: NDArray[np.bool_] | None = None


def assess(found: Answered, *, classes: Sequence[str], split: str, standards: Standards) -> Evaluation:
    """Every figure of one split with its 95 % interval. Raises DataError where there are no pictures.

    Where pictures have groups, what is resampled are groups, and shares are those of as many pictures as the groups are worth.
    """
    probabilities, labels = np.asarray(found.probabilities), np.asarray(found.labels)
    plain = evaluate_probabilities(probabilities, labels, classes=classes, split=split)
    groups = group_numbers(found.pictures)
    drawn = resample(probabilities, labels, groups=groups)
    answers, per_class, areas = probabilities.argmax(1), [], []
    for number, score in enumerate(plain.per_class):
        ours = area(probabilities[:, number], labels == number)
        areas += [ours] if ours is not None else []
        per_class.append(_class_score(number, score, (answers, labels), groups))
        if ours is not None:
            per_class[-1] = replace(per_class[-1], auc=area_interval(ours, groups))
    error = expected_calibration_error(probabilities, labels)
    calibration = Calibration(
        error=mirrored_interval(error, drawn.calibration_error),
        error_if_perfect=perfect_calibration_quantile(probabilities.max(1)),
        bins=reliability_bins(probabilities, labels),
        temperature=standards.temperature,
        error_before=None if found.raw is None else expected_calibration_error(found.raw, labels),
    )
    test = None
    if len(classes) == 2:
        test = two_classes(probabilities, labels, positive=classes[1], lines=dict(standards.lines), groups=groups)
    return replace(
        plain,
        accuracy=grouped_share(answers == labels, groups),
        per_class=tuple(per_class),
        top5_interval=None if plain.top5 is None else grouped_share(among_best(probabilities, labels, 5), groups),
        macro_f1_interval=share_interval(plain.macro_f1, drawn.macro_f1, len(labels)),
        log_loss_interval=loss_interval(plain.log_loss, drawn.log_loss),
        macro_auc=mean_area_interval(areas, groups) if areas else None,
        calibration=calibration,
        two_classes=test,
        promises=kept_promises(standards.refusal, probabilities, labels, unlike=found.unlike),
        confused=confused_pairs(probabilities, labels, found.pictures, classes),
    )


def _class_score(
    number: int, score: ClassScore, answered: tuple[Integers, Integers], groups: Integers | None
) -> ClassScore:
    """The class with intervals of recall and precision. answered: answers (N,) and labels (N,)."""
    answers, labels = answered

    def share(of: NDArray[np.bool_]) -> Interval | None:
        return grouped_share((answers == labels)[of], None if groups is None else groups[of]) if of.any() else None

    return replace(score, recall_interval=share(labels == number), precision_interval=share(answers == number))


def group_numbers(pictures: Sequence[Picture]) -> NDArray[np.int64] | None:
    """(N,) the same number for pictures of one group; a picture without one is a group of its own. None where no picture has one."""
    if not any(picture.group for picture in pictures):
        return None
    names = [f"group {picture.group}" if picture.group else f"row {picture.row}" for picture in pictures]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def confused_pairs(
    probabilities: Floats, labels: Integers, pictures: Sequence[Picture], classes: Sequence[str]
) -> tuple[ConfusedPair, ...]:
    """Pairs of classes that were mixed up, the most frequent first, with the pictures, the surest answer first."""
    answers = probabilities.argmax(1)
    wrong = np.flatnonzero(answers != labels)
    if not len(wrong) or not len(pictures):
        return ()
    wrong = wrong[np.argsort(-probabilities[wrong, answers[wrong]], kind="stable")]
    pairs: dict[tuple[int, int], list[Picture]] = {}
    for place in wrong:
        pairs.setdefault((int(labels[place]), int(answers[place])), []).append(pictures[int(place)])
    found = sorted(pairs.items(), key=lambda item: (-len(item[1]), item[0]))[:MOST_PAIRS]
    return tuple(
        ConfusedPair(
            classes[label], classes[answer], len(members),
            tuple(picture.row for picture in members[:MOST_ROWS]), tuple(picture.path for picture in members[:MOST_ROWS]),
        )
        for (label, answer), members in found
    )  # fmt: skip
