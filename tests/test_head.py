"""The baseline's head: the same optimum as scikit-learn's LogisticRegression, folds that are fair, sets of any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from foldertune.errors import WorkFailedError
from foldertune.training import head
from foldertune.training.head import (
    STRENGTHS,
    Head,
    fit_head,
    judge_again,
    judge_folds,
    logistic_path,
    principal_axes,
    rows_of,
    stratified_folds,
)

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def blobs(num_pictures: int, num_features: int, num_classes: int, *, seed: int = 0) -> tuple[Floats, Integers]:
    """Overlapping clouds, one for each class, with a few strong directions and many weak ones, as features have."""
    random = np.random.default_rng(seed)
    labels = np.arange(num_pictures) % num_classes
    centres = random.normal(size=(num_classes, num_features))
    strengths = 1 / np.sqrt(1 + np.arange(num_features))
    features = 3 + (centres[labels] + random.normal(size=(num_pictures, num_features)) * 2) * strengths
    return features.astype(np.float32), labels.astype(np.int64)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return result


def probabilities_of(fitted: Head, features: Floats) -> NDArray[np.float64]:
    return softmax(features.astype(np.float64) @ fitted.weight.numpy().T.astype(np.float64) + fitted.bias.numpy())


def standard(features: Floats) -> NDArray[np.float64]:
    """Centred and divided by one number, as `fit_head` says that C is meant."""
    double = features.astype(np.float64)
    scaled: NDArray[np.float64] = (double - double.mean(0)) / double.std(0).mean()
    return scaled


def oracle(features: NDArray[np.float64], labels: Integers, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, tol=1e-8, max_iter=10_000).fit(features, labels)


SHAPES = [
    (60, 200, 3),
    (200, 60, 4),
    (90, 90, 5),
    (40, 8, 2),
]  # more features than pictures, fewer, as many, hardly any


@pytest.mark.parametrize("shape", SHAPES)
def test_logistic_path_at_every_strength_agrees_with_scikit_learn(shape: tuple[int, int, int]) -> None:
    features, labels = blobs(*shape)
    x = standard(features)
    strengths = (1e-4, 1e-2, 1.0)
    path = logistic_path(torch.from_numpy(x).float(), torch.from_numpy(labels), strengths, num_classes=shape[2])
    for strength, (weight, bias) in zip(strengths, path, strict=True):
        reference = oracle(x, labels, strength)
        logits = x @ weight.double().numpy().T + bias.double().numpy()
        if shape[2] > 2:  # with two classes scikit-learn fits one row, penalised half as much in the same terms
            assert np.abs(softmax(logits) - reference.predict_proba(x)).max() < 1e-3
            assert np.abs(weight.numpy() - reference.coef_).max() < 1e-3
        assert objective(x, labels, weight.numpy(), bias.numpy(), strength) == pytest.approx(
            min_objective(x, labels, strength), rel=1e-4
        )


def objective(x: NDArray[np.float64], labels: Integers, weight: Floats, bias: Floats, strength: float) -> float:
    """C * sum of cross-entropies + |weight|^2 / 2, straight from its definition."""
    probabilities = softmax(x @ weight.T.astype(np.float64) + bias)
    losses = -np.log(probabilities[np.arange(len(labels)), labels])
    return float(strength * losses.sum() + 0.5 * (weight.astype(np.float64) ** 2).sum())


def min_objective(x: NDArray[np.float64], labels: Integers, strength: float) -> float:
    """The least that scipy's own minimiser finds, in double precision."""
    from scipy.optimize import minimize

    num_classes, num_features = int(labels.max()) + 1, x.shape[1]
    truth = np.eye(num_classes)[labels]

    def both(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        table = flat.reshape(num_classes, num_features + 1)
        weight, bias = table[:, :-1], table[:, -1]
        probabilities = softmax(x @ weight.T + bias)
        losses = -np.log(probabilities[np.arange(len(labels)), labels])
        error = strength * (probabilities - truth)
        gradient = np.concatenate([error.T @ x + weight, error.sum(0)[:, None]], axis=1)
        return strength * losses.sum() + 0.5 * (weight**2).sum(), gradient.ravel()

    start = np.zeros(num_classes * (num_features + 1))
    return float(minimize(both, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "gtol": 1e-9}).fun)


@pytest.mark.parametrize("shape", [(60, 200, 3), (200, 60, 4)])
def test_fit_head_at_its_strength_agrees_with_scikit_learn(shape: tuple[int, int, int]) -> None:
    features, labels = blobs(*shape)
    fitted = fit_head(features, labels, num_classes=shape[2], seed=0)
    reference = oracle(standard(features), labels, fitted.strength)
    assert np.abs(probabilities_of(fitted, features) - reference.predict_proba(standard(features))).max() < 1e-3
    assert (fitted.weight.dtype, fitted.bias.dtype) == (torch.float32, torch.float32)
    assert (tuple(fitted.weight.shape), tuple(fitted.bias.shape)) == ((shape[2], shape[1]), (shape[2],))


@pytest.mark.parametrize(("seed", "spread"), [(0, 1.0), (1, 1.0), (2, 0.2), (3, 4.0)])
def test_fit_head_chooses_the_strength_that_scikit_learn_finds_best_out_of_fold(seed: int, spread: float) -> None:
    features, labels = blobs(60, 80, 3, seed=seed)
    noise = np.random.default_rng(seed).normal(size=features.shape)
    features = (features + abs(spread - 1) * noise).astype(np.float32)
    fitted = fit_head(features, labels, num_classes=3, seed=4)
    x, folds = standard(features), stratified_folds(labels, head.NUM_FOLDS, seed=4)
    losses = []
    for strength in STRENGTHS:
        probabilities = np.empty((60, 3))
        for fold in range(head.NUM_FOLDS):
            inside = folds != fold
            probabilities[~inside] = oracle(x[inside], labels[inside], strength).predict_proba(x[~inside])
        losses.append(float(-np.log(probabilities[np.arange(60), labels]).mean()))
        if strength == fitted.strength:
            assert np.abs(probabilities - fitted.probabilities).max() < 1e-2
            assert fitted.accuracy == (probabilities.argmax(1) == labels).mean()
    assert fitted.strength == STRENGTHS[int(np.argmin(losses))]
    assert fitted.log_loss == pytest.approx(min(losses), abs=1e-3)


def test_fit_head_on_shifted_and_scaled_features_answers_the_same() -> None:
    features, labels = blobs(50, 20, 3)
    fitted, moved = (fit_head(values, labels, num_classes=3, seed=0) for values in (features, 8 * features - 100))
    assert moved.strength == fitted.strength
    answers = probabilities_of(fitted, features)
    assert np.abs(probabilities_of(moved, 8 * features - 100) - answers).max() < 1e-3


def test_fit_head_twice_gives_the_same_bits() -> None:
    features, labels = blobs(80, 120, 4)
    first, second = (fit_head(features, labels, num_classes=4, seed=1) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
    assert np.array_equal(first.probabilities, second.probabilities)


def test_fit_head_leaves_the_number_of_cores_as_it_was() -> None:
    before = torch.get_num_threads()
    fit_head(*blobs(20, 5, 2), num_classes=2, seed=0)
    assert torch.get_num_threads() == before


def test_fit_head_with_a_class_of_one_picture_still_has_a_row_for_it() -> None:
    features, labels = blobs(31, 10, 3)
    labels[labels == 2] = 0
    labels[7] = 2  # in the fold that holds it out, nobody has seen the class
    fitted = fit_head(features, labels, num_classes=3, seed=0)
    assert bool(torch.isfinite(fitted.weight).all())
    assert not np.isnan(fitted.probabilities).any()
    assert fitted.probabilities[7, 2] < 0.2


def test_fit_head_with_a_class_without_pictures_never_answers_it() -> None:
    features, labels = blobs(40, 10, 3)
    fitted = fit_head(features, labels, num_classes=5, seed=0)
    assert fitted.weight.shape == (5, 10)
    assert set(probabilities_of(fitted, features).argmax(1)) <= {0, 1, 2}


def test_fit_head_on_constant_features_answers_with_the_shares_of_the_classes() -> None:
    labels = np.repeat(np.arange(3), (10, 20, 30))
    fitted = fit_head(np.full((60, 7), 2.5, np.float32), labels, num_classes=3, seed=0)
    assert np.abs(probabilities_of(fitted, np.full((1, 7), 2.5, np.float32)) - [[1 / 6, 2 / 6, 3 / 6]]).max() < 1e-3


@pytest.mark.parametrize("num_constant", [1, 19])
def test_fit_head_gives_constant_features_no_weight(num_constant: int) -> None:
    features, labels = blobs(60, 20, 3)
    features[:, :num_constant] = 4.0
    fitted = fit_head(features, labels, num_classes=3, seed=0)
    assert float(fitted.weight[:, :num_constant].abs().max()) < 1e-5


@pytest.mark.parametrize("labels", [[0, 1], [1, 0], [0, 0], [0, 1, 1]])
def test_fit_head_on_two_or_three_pictures_is_finite(labels: Sequence[int]) -> None:
    features = np.arange(len(labels) * 4, dtype=np.float32).reshape(len(labels), 4) ** 1.5
    fitted = fit_head(features, np.array(labels, np.int64), num_classes=2, seed=0)
    assert bool(torch.isfinite(fitted.weight).all())
    assert bool(torch.isfinite(fitted.bias).all())
    assert np.isfinite(fitted.log_loss)
    assert 0 <= fitted.accuracy <= 1


def test_fit_head_on_one_picture_has_nothing_held_out() -> None:
    fitted = fit_head(np.ones((1, 3), np.float32), np.zeros(1, np.int64), num_classes=2, seed=0)
    assert np.isnan(fitted.probabilities).all()
    assert (fitted.log_loss, fitted.accuracy) == (np.inf, 0.0)
    assert float(fitted.bias[0]) > float(fitted.bias[1])


def test_fit_head_on_very_many_holds_out_one_fifth_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_MANY", 0)
    features, labels = blobs(50, 10, 2)
    fitted = fit_head(features, labels, num_classes=2, seed=0)
    seen = ~np.isnan(fitted.probabilities[:, 0])
    assert np.array_equal(seen, stratified_folds(labels, head.NUM_FOLDS, seed=0) == 0)
    assert fitted.accuracy == pytest.approx((fitted.probabilities[seen].argmax(1) == labels[seen]).mean())


@pytest.mark.parametrize(("enough", "num_folds"), [(300, 2), (301, 5)])
def test_fit_head_on_many_compares_strengths_on_two_folds_and_judges_the_chosen_one_on_all(
    monkeypatch: pytest.MonkeyPatch, enough: int, num_folds: int
) -> None:
    features, labels = blobs(300, 40, 3)
    reference, compared = fit_head(features, labels, num_classes=3, seed=0), []
    real = head._best_strength

    def best_strength(*given: Any, held_out: NDArray[np.bool_], **options: Any) -> Any:
        compared.append(len(held_out))
        return real(*given, held_out=held_out, **options)

    monkeypatch.setattr(head, "_best_strength", best_strength)
    monkeypatch.setattr(head, "_ENOUGH", enough)
    fitted = fit_head(features, labels, num_classes=3, seed=0)
    assert compared == [num_folds]
    assert abs(STRENGTHS.index(fitted.strength) - STRENGTHS.index(reference.strength)) <= 2
    assert not np.isnan(fitted.probabilities).any()
    assert fitted.log_loss == pytest.approx(reference.log_loss, abs=0.02)


def test_judge_folds_says_of_each_row_what_the_fitted_head_says_out_of_fold() -> None:
    features, labels = blobs(120, 30, 3)
    folds = stratified_folds(labels, 5, seed=0)
    fitted = fit_head(features, labels, num_classes=3, seed=0, folds=folds)
    judged = judge_folds(rows_of(features, labels, num_classes=3), folds)
    np.testing.assert_array_equal(judged.probabilities, fitted.probabilities)
    assert judged.strength == fitted.strength


@pytest.mark.parametrize("some", [True, False], ids=["some untaught", "all taught"])
def test_judge_again_learns_nothing_from_untaught_rows_and_judges_them_too(some: bool) -> None:
    features, labels = blobs(150, 30, 3)
    folds, untaught = stratified_folds(labels, 5, seed=0), (np.arange(150) % 7 == 0) & some
    found = judge_again(
        rows_of(features, labels, num_classes=3), folds, strength=0.01, untaught=untaught if some else None
    )
    x = standard(features)
    for fold in range(5):
        taught = (folds != fold) & ~untaught
        expected = oracle(x[taught], labels[taught], 0.01).predict_proba(x[folds == fold])
        np.testing.assert_allclose(found[folds == fold], expected, atol=0.01)


@pytest.mark.parametrize(
    "fit", [lambda x, y: fit_head(x, y, num_classes=2, seed=0), lambda x, y: rows_of(x, y, num_classes=2)]
)
def test_features_that_are_not_finite_are_refused(fit: Any) -> None:
    features, labels = blobs(20, 5, 2)
    features[3, 2] = np.nan
    with pytest.raises(WorkFailedError, match="not finite"):
        fit(features, labels)


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (40, 40)])
def test_principal_axes_are_orthonormal_and_span_the_rows(shape: tuple[int, int]) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=shape)).float()
    axes = principal_axes(x)
    assert torch.allclose(axes.T @ axes, torch.eye(axes.shape[1]), atol=1e-4)
    assert torch.allclose(x @ axes @ axes.T, x, atol=1e-3)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_stratified_folds_spread_every_class_and_all_pictures_evenly(
    labels: list[int], num_folds: int, seed: int
) -> None:
    folds = stratified_folds(np.array(labels, np.int64), num_folds, seed=seed)
    for members in [folds, *(folds[np.array(labels) == label] for label in set(labels))]:
        counts = np.bincount(members, minlength=num_folds)
        assert len(counts) == num_folds
        assert counts.max() - counts.min() <= 1


def test_stratified_folds_are_the_seeds_own() -> None:
    labels = np.arange(100) % 3
    first, again, other = (stratified_folds(labels, 5, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert Counter(first.tolist()) == dict.fromkeys(range(5), 20)
