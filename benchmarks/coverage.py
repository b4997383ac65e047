"""Do nominal 95 % intervals hold what they are for in 93 to 97 % of resamplings? Are promises kept, and is confidence calibrated?

All by the head on frozen features, as `foldertune train` fits it. Validation and test pictures together are the population: its own figures
are the truth, and test sets are drawn from it with replacement.

usage: python benchmarks/coverage.py FOLDER ... --weights FILE.safetensors [--seed 1] [--draws 1000] [--splits 100]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from frozen_features import Frozen, frozen_features
from numpy.typing import NDArray
from tables import load_now, parser_of, publish
from tables import page as page_of

from foldertune.evaluation.calibration import expected_calibration_error, perfect_calibration_quantile
from foldertune.evaluation.intervals import (
    area,
    area_interval,
    loss_interval,
    mean_area_interval,
    mirrored_interval,
    resample,
    share_interval,
)
from foldertune.evaluation.metrics import (
    careful_temperature,
    evaluate_probabilities,
    fit_temperature,
    paired_difference,
    paired_share_difference,
    picture_losses,
    softmax,
    wilson_interval,
)
from foldertune.evaluation.refusal import PROMISES, fit_refusal, kept_promises
from foldertune.records import Interval
from foldertune.training.head import fit_head, refit_head

NUM_SEEDS = 10
_LEARNED = 0.9  # of the training pictures, drawn by each seed: what stands for all that a seed changes in a training
_LITTLE = 0.2  # what the head learned from that another one is compared with
_BOOTSTRAP = 1000


@dataclass(frozen=True, slots=True)
class Population:
    """Logits (N, K) of a head, of heads of other seeds, and of one that learned little, for pictures with labels (N,).

    num_val: the first so many were validation pictures.
    """

    logits: NDArray[np.float32]
    others: list[NDArray[np.float32]]
    weaker: NDArray[np.float32]
    labels: NDArray[np.int64]
    num_val: int

    @property
    def num_test(self) -> int:
        return len(self.labels) - self.num_val


def main() -> None:
    parser = parser_of(__doc__, "coverage", rounds=False)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draws", type=int, default=1000, help="test sets drawn for the intervals")
    parser.add_argument("--splits", type=int, default=100, help="splits drawn for the promises")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    load = load_now()
    sections = [
        f"{given.draws:,} test sets and {given.splits} splits of each set; the standard error of 95 % of 1,000 is 0.7 points."
    ]
    for folder in given.folders:
        frozen = frozen_features(folder, given.weights, seed=given.seed)
        sections.append(section(folder.name, frozen, given))
    text = page_of("Intervals, promises and calibration", sections, arguments=sys.argv, load=load)
    publish("coverage", text, write=not given.no_page)


def section(name: str, frozen: Frozen, given: argparse.Namespace) -> str:
    """All that is measured on one set."""
    found = population_of(frozen, seed=given.seed)
    parts = [
        f"## {name}",
        f"{len(found.labels):,} pictures, test sets of {found.num_test}.",
        coverage(found, frozen.dataset.classes, num_draws=given.draws),
        promises(found, num_splits=given.splits),
        calibration(found),
    ]
    return "\n\n".join(parts)


def population_of(frozen: Frozen, *, seed: int) -> Population:
    """A head, heads of other seeds, and what they say of validation and test pictures."""
    features, labels, num_classes = frozen.features, frozen.labels, len(frozen.dataset.classes)
    head = fit_head(features["train"], labels["train"], num_classes=num_classes, seed=seed)
    everything = np.concatenate([features["val"], features["test"]])
    random = np.random.Generator(np.random.Philox(seed))
    others = []
    for learned in [_LITTLE, *[_LEARNED] * NUM_SEEDS]:
        rows = np.sort(random.permutation(len(labels["train"]))[: int(learned * len(labels["train"]))])
        weight, bias = refit_head(
            features["train"][rows], labels["train"][rows], num_classes=num_classes, strength=head.strength
        )
        others.append(everything @ weight.T + bias)
    logits = everything @ head.weight.numpy().T + head.bias.numpy()
    return Population(
        logits, others[1:], others[0], np.concatenate([labels["val"], labels["test"]]), len(labels["val"])
    )


def coverage(found: Population, classes: tuple[str, ...], *, num_draws: int) -> str:
    """How often each interval holds the figure of the population, and how often two seeds are called equal."""
    temperature = fit_temperature(found.logits, found.labels)
    shares = softmax(found.logits / temperature)
    one = softmax(found.weaker / temperature)
    others = [softmax(each / fit_temperature(each, found.labels)) for each in found.others]
    truths = {name: each.value for name, each in intervals(shares, found.labels, classes, seed=0).items()}
    truths |= {name: each.value for name, each in differences(shares, one, found.labels).items()}
    held = dict.fromkeys(truths, 0)
    widths = dict.fromkeys(truths, 0.0)
    equal = {"accuracy": 0, "log loss": 0}
    random = np.random.Generator(np.random.Philox(11))
    for draw in range(num_draws):
        rows = random.integers(len(found.labels), size=found.num_test)
        y = found.labels[rows]
        drawn = intervals(shares[rows], y, classes, seed=draw) | differences(shares[rows], one[rows], y)
        for name, each in drawn.items():
            held[name] += each.low <= truths[name] <= each.high
            widths[name] += (each.high - each.low) / num_draws
        pair = random.permutation(NUM_SEEDS)[:2]
        seeds = [others[place][rows] for place in pair]
        for name, each in zip(equal, differences(seeds[0], seeds[1], y).values(), strict=True):
            equal[name] += each.low <= 0 <= each.high
    lines = ["| figure | of all | interval holds it in | mean width |", "|---|---|---|---|"]
    lines += [f"| {name} | {truths[name]:.3f} | {held[name] / num_draws:.1%} | {widths[name]:.3f} |" for name in truths]
    told = ", ".join(f"by {name} in {count / num_draws:.1%}" for name, count in equal.items())
    learned = f"each learned from another {_LEARNED:.0%} of the training pictures"
    spread = np.std([(each.argmax(1) == found.labels).mean() for each in others], ddof=1)
    return "\n".join(lines) + (
        f"\n\nTwo of {NUM_SEEDS} heads, {learned}, are called equal {told}; wanted at least 95 %. Their accuracies on all pictures differ "
        f"by {spread:.3f} (standard deviation), which a paired interval over test pictures knows nothing of."
    )


def intervals(
    shares: NDArray[np.float32], labels: NDArray[np.int64], classes: tuple[str, ...], *, seed: int
) -> dict[str, Interval]:
    """Every interval of one test set."""
    plain = evaluate_probabilities(shares, labels, classes=classes, split="test")
    drawn = resample(shares, labels, num_draws=_BOOTSTRAP, seed=seed)
    areas = [area(shares[:, k], labels == k) for k in range(shares.shape[1])]
    first = areas[1]
    assert first is not None
    error = expected_calibration_error(shares, labels)
    return {
        "accuracy (Wilson)": plain.accuracy,
        "recall of one class (Wilson)": wilson_interval(plain.confusion[1][1], plain.per_class[1].num_pictures),
        "macro F1 (bootstrap)": share_interval(plain.macro_f1, drawn.macro_f1, len(labels)),
        "log loss (bootstrap)": loss_interval(plain.log_loss, drawn.log_loss),
        "calibration error (bootstrap)": mirrored_interval(error, drawn.calibration_error),
        "AUC of one class (DeLong)": area_interval(first),
        "mean AUC (DeLong)": mean_area_interval([each for each in areas if each is not None]),
    }


def differences(one: NDArray[np.float32], other: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Interval]:
    """What one model is better by than another on the same pictures."""
    right = [each.argmax(1) == labels for each in (one, other)]
    only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return {
        "difference of accuracies (paired)": paired_share_difference(*only, len(labels)),
        "difference of log losses (paired)": paired_difference(
            picture_losses(one, labels), picture_losses(other, labels)
        ),
    }


def promises(found: Population, *, num_splits: int) -> str:
    """Over many splits of the population into validation and test: is the promised error within its interval on test?"""
    random = np.random.Generator(np.random.Philox(12))
    kept: dict[float, list[tuple[bool, bool, float, float]]] = {error: [] for error in PROMISES}
    for _ in range(num_splits):
        order = random.permutation(len(found.labels))
        val, test = order[: found.num_val], order[found.num_val :]
        temperature = careful_temperature(found.logits[val], found.labels[val])
        refusal = fit_refusal(softmax(found.logits[val] / temperature), found.labels[val])
        for each in kept_promises(refusal, softmax(found.logits[test] / temperature), found.labels[test]):
            made = each.threshold is not None
            holds = not made or each.error is None or each.error.low <= each.promise
            error = each.error.value if each.error else 0.0
            kept[each.promise].append((made, holds, each.answered.value if made else 1.0, error))
    lines = [
        "| promise | made in | holds in | answered, where made | wrong among these |",
        "|---|---|---|---|---|",
    ]
    mean: Callable[[list[float]], float] = lambda values: float(np.mean(values)) if values else float("nan")  # noqa: E731
    for error, rows in kept.items():
        made_rows = [row for row in rows if row[0]]
        answered, wrong = mean([row[2] for row in made_rows]), mean([row[3] for row in made_rows])
        figures = f"{answered:.1%} | {wrong:.1%}" if made_rows else "- | -"
        lines.append(
            f"| {error:.0%} | {len(made_rows) / len(rows):.0%} | {mean([float(row[1]) for row in rows]):.0%} | {figures} |"
        )
    return (
        "\n".join(lines)
        + "\n\nA promise holds where the 95 % interval of the error on test reaches down to it; one that is not made breaks nothing. "
        "Wanted in at least 90 %."
    )


def calibration(found: Population) -> str:
    """The given split: the calibration error on test after the temperature of validation, and what chance makes."""
    val, test = slice(0, found.num_val), slice(found.num_val, None)
    temperature = careful_temperature(found.logits[val], found.labels[val])
    before, after = softmax(found.logits[test]), softmax(found.logits[test] / temperature)
    errors = [expected_calibration_error(each, found.labels[test]) for each in (before, after)]
    limit = perfect_calibration_quantile(after.max(1))
    verdict = "inside" if errors[1] <= limit else "outside"
    return (
        f"The split as it is: calibration error on test {errors[0]:.4f}, after the temperature {temperature:.2f} of validation "
        f"{errors[1]:.4f}; a perfectly calibrated model stays under {limit:.4f} in 95 of 100: {verdict}."
    )


if __name__ == "__main__":
    main()
