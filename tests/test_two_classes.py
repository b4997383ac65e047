"""Two classes asked as a test, against scikit-learn's curve and counting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foldertune.evaluation.metrics import softmax, wilson_interval
from foldertune.evaluation.two_classes import NUM_ROC_POINTS, chosen_lines, two_classes


def invented(num: int, *, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.Generator(np.random.Philox(seed))
    labels = random.integers(2, size=num)
    return softmax(1.2 * random.normal(size=(num, 2)) + 1.5 * np.eye(2)[labels]), labels


def test_chosen_lines_agree_with_scikit_learns_curve() -> None:
    from sklearn.metrics import roc_curve

    probabilities, labels = invented(300)
    false, true, steps = roc_curve(labels, probabilities[:, 1].astype(np.float64), drop_intermediate=False)
    lines = chosen_lines(probabilities, labels)
    scores = np.unique(probabilities[:, 1].astype(np.float64))
    for name, place in (("sensitive", int(np.argmax(true >= 0.95))), ("balanced", int(np.argmax(true - false)))):
        below = scores[scores < steps[place]].max()
        assert below < lines[name] < steps[place]
        assert lines[name] == pytest.approx((below + steps[place]) / 2)


def test_chosen_lines_of_one_class_alone_are_none() -> None:
    assert chosen_lines(np.array([[0.2, 0.8], [0.4, 0.6]]), np.array([1, 1])) == {}


def test_two_classes_figures_agree_with_counting() -> None:
    from sklearn.metrics import roc_auc_score

    probabilities, labels = invented(200)
    found = two_classes(probabilities, labels, positive="ill", lines={"sensitive": 0.2})
    assert found is not None
    assert found.positive == "ill"
    assert found.auc.value == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))
    default, sensitive = found.points
    ill, well = labels == 1, labels == 0
    assert default.sensitivity == wilson_interval(int((probabilities[ill].argmax(1) == 1).sum()), int(ill.sum()))
    assert default.specificity == wilson_interval(int((probabilities[well].argmax(1) == 0).sum()), int(well.sum()))
    assert sensitive.sensitivity == wilson_interval(int((probabilities[ill, 1] >= 0.2).sum()), int(ill.sum()))
    assert (sensitive.chosen_on, default.chosen_on) == ("val", "")
    assert (found.roc[0], found.roc[-1]) == ((0, 0), (1, 1))
    assert len(invented(3000)[1]) > NUM_ROC_POINTS >= len(found.roc)


def test_two_classes_without_one_of_them_is_none() -> None:
    assert two_classes(np.array([[0.2, 0.8]]), np.array([1]), positive="b", lines={}) is None
