"""What the head on frozen features answers to training pictures that it has not seen, for the forecast of a run's accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foldertune.data.pictures import pack_pictures
from foldertune.data.split import units
from foldertune.outlook import Judged, expected_range, left_by
from foldertune.preprocess import Preprocess
from foldertune.records import AccuracyRange, Dataset, Picture, Work
from foldertune.training.baseline import class_numbers, head_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.training.features import Extraction
    from foldertune.training.head import Head

MOST_PICTURES = 2_000  # that a plan asks the network about; some more where classes are so many
LEAST_PICTURES = 20  # with fewer the range would hold nearly everything: a guess
_LEAST_OF_EACH = 2  # one to learn from, one to be asked

Expected = tuple[AccuracyRange | None, str]  # the range, or why there is none


def cannot_expect(dataset: Dataset, values: Mapping[str, Any]) -> str:
    """Why no range can be told of a plan with these values; an empty text where it can."""
    if values["weights"] == "random":
        return "a network of random weights has no features that tell what training will reach"
    if not dataset.of("test"):
        return "there are no test pictures to measure it on"
    if (num := len(dataset.of("train"))) < LEAST_PICTURES:
        return f"{num} training pictures are too few to try a head on; from {LEAST_PICTURES} on there is a range"
    counts = dataset.class_counts("train")
    if sum(count >= _LEAST_OF_EACH for count in counts.values()) < 2:
        return "fewer than two classes have two training pictures each, one to learn from and one to be asked"
    return ""


def expected_accuracy(
    dataset: Dataset,
    values: Mapping[str, Any],
    extraction: Extraction,
    preprocess: Preprocess,
    *,
    fitted: Head | None = None,
) -> Work[Expected]:
    """The range for a plan with these values. fitted: the head of the baseline, where there is one already.

    Of many training pictures some stand for all of them, the same in a plan and in a run.
    """
    if why_not := cannot_expect(dataset, values):
        return None, why_not
    everything = dataset.of("train")
    chosen, cache = sampled(everything, MOST_PICTURES), extraction.cache
    labels = class_numbers(chosen, dataset.classes)
    head = fitted if len(chosen) == len(everything) else None
    if head is None:
        packed = yield from pack_pictures(dataset.folder, chosen, preprocess, cache=cache, workers=values["workers"])
        features = yield from extraction.features(chosen, packed)
        head = yield from head_of(
            chosen, features, labels, extraction, num_classes=len(dataset.classes), seed=values["seed"]
        )
    judged = judged_by(head, chosen, labels, dataset)
    if judged is None:
        return None, "no training picture of a class that is tested could be asked out of fold"
    found = expected_range(judged, left_by(values))
    if dataset.split_source != "made":
        found = replace(found, why=f"{found.why}; if the test pictures, which were given, are like the training ones")
    return found, ""


def sampled(pictures: Sequence[Picture], most: int) -> tuple[Picture, ...]:
    """At most so many, of each class its share and at least two, evenly from all of it; in their order."""
    if len(pictures) <= most:
        return tuple(pictures)
    places: dict[str, list[int]] = {}
    for place, picture in enumerate(pictures):
        places.setdefault(picture.label, []).append(place)
    chosen: list[int] = []
    for members in places.values():
        count = min(len(members), max(_LEAST_OF_EACH, int(most * len(members) / len(pictures))))
        chosen += [members[number * len(members) // count] for number in range(count)]
    return tuple(pictures[place] for place in sorted(chosen))


def judged_by(head: Head, chosen: Sequence[Picture], labels: NDArray[np.int64], dataset: Dataset) -> Judged | None:
    """The accuracy out of fold with each class weighted as among the test pictures; None where none of their classes was asked about.

    Pictures that belong together are one witness.
    """
    # A class that lies in one fold alone has taught nobody when it is asked about.
    parts = units(chosen)
    num_units = Counter(label for unit in parts for label in {picture.label for picture in unit})
    asked = np.array([num_units[picture.label] > 1 for picture in chosen]) & ~np.isnan(head.probabilities[:, 0])
    tested = np.bincount(class_numbers(dataset.of("test"), dataset.classes), minlength=len(dataset.classes))
    counts = np.bincount(labels[asked], minlength=len(tested))
    weights = (tested / np.maximum(1, counts))[labels[asked]]
    if not weights.any():
        return None
    right = head.probabilities[asked].argmax(1) == labels[asked]
    judges = [picture for picture, one in zip(chosen, asked, strict=True) if one]
    tests = dataset.of("test")
    return Judged(
        accuracy=float(weights @ right / weights.sum()),
        num_pictures=num_witnesses(judges, weights),
        num_seen=len(chosen),
        num_train=len(dataset.of("train")),
        num_test=len(tests),
        num_independent=round(num_witnesses(tests, np.ones(len(tests)))),
    )


def num_witnesses(pictures: Sequence[Picture], weights: NDArray[np.float64]) -> float:
    """How many independent pictures of equal weight say as much as these (N,), where those that belong together say the same.

    Source: Kish 1965, "Survey Sampling", section 11.7, with a unit of what belongs together for each of its cases.
    """
    of_row = {picture.row: float(weight) for picture, weight in zip(pictures, weights, strict=True)}
    totals = np.array([sum(of_row[picture.row] for picture in unit) for unit in units(pictures)])
    return float(totals.sum() ** 2 / (totals @ totals))
