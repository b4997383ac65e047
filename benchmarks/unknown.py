"""How well is a class told that was never shown? Each class of a set is held out in turn, and a head is fitted on the others.

The frozen network gives the features; head, temperature and scores are those of `foldertune train`, with what validation pictures of the
known classes say. Known pictures are those of the test split, unseen ones all of the class that was held out.

usage: python benchmarks/unknown.py FOLDER ... --weights FILE.safetensors [--seed 1]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from frozen_features import Frozen, frozen_features
from numpy.typing import NDArray
from tables import cell, load_now, parser_of, publish
from tables import page as page_of

from foldertune.evaluation.intervals import area
from foldertune.evaluation.metrics import fit_temperature, softmax
from foldertune.evaluation.unlike import KINDS, LOST, MAX_SOFTMAX, fit_unlike
from foldertune.training.head import fit_head

WANTED = 0.03  # what a score's AUROC should be above that of the largest probability


@dataclass(frozen=True, slots=True)
class Told:
    """One held-out class by one score. refused: of the unseen class, where 5 % of the known test pictures are lost.

    by_limit: of the unseen class with the limit that validation gave; lost: of the known test pictures with it.
    """

    auroc: float
    refused: float
    by_limit: float
    lost: float


def main() -> None:
    parser = parser_of(__doc__, "unknown", rounds=False)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    load = load_now()
    sections = [
        "AUROC: how often a picture of the unseen class is scored above a known one. Refused: the share of the unseen class that is\n"
        "refused where 5 % of the known test pictures are lost. By the limit: the same with the limit that validation pictures give, and\n"
        "what that loses of known test pictures. `foldertune train` takes the better of `distance` and `energy` on held-out classes;\n"
        "`max softmax` refuses what is unsure."
    ]
    for folder in given.folders:
        frozen = frozen_features(folder, given.weights, seed=given.seed)
        sections.append(f"## {folder.name}\n\n{section(frozen, seed=given.seed)}")
    text = page_of("Classes that were never shown", sections, arguments=sys.argv, load=load)
    publish("unknown", text, write=not given.no_page)


def section(frozen: Frozen, *, seed: int) -> str:
    """The tables of one set."""
    classes = frozen.dataset.classes
    rows = [held_out(frozen, unseen, seed=seed) for unseen in range(len(classes))]
    names = (MAX_SOFTMAX, *KINDS)
    means = {name: mean_of([row[name] for row in rows]) for name in names}
    lines = [
        "| score | mean AUROC | above max softmax | refused | by the limit | known lost by it |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        found = means[name]
        lines.append(
            f"| {name} | {found.auroc:.3f} | {found.auroc - means[MAX_SOFTMAX].auroc:+.3f} | {found.refused:.1%} | {found.by_limit:.1%} "
            f"| {found.lost:.1%} |"
        )
    gain = means["distance"].auroc - means[MAX_SOFTMAX].auroc
    verdict = (
        f"Wanted: {WANTED:+.2f} in the mean. Distance: {gain:+.3f}, {'reached' if gain >= WANTED else 'not reached'}."
    )
    lines += [
        "",
        verdict,
        "",
        "| class held out | AUROC, max softmax | AUROC, distance | refused, max softmax | refused, distance |",
        "|---|---|---|---|---|",
    ]
    for name, row in zip(classes, rows, strict=True):
        one, other = row[MAX_SOFTMAX], row["distance"]
        lines.append(
            f"| {cell(name)} | {one.auroc:.3f} | {other.auroc:.3f} | {one.refused:.1%} | {other.refused:.1%} |"
        )
    return "\n".join(lines) + "\n"


def held_out(frozen: Frozen, unseen: int, *, seed: int) -> dict[str, Told]:
    """What each score makes of one class that the head has never seen."""
    features, labels = frozen.features, frozen.labels
    known = {split: labels[split] != unseen for split in labels}
    numbers = {split: labels[split][known[split]] - (labels[split][known[split]] > unseen) for split in labels}
    head = fit_head(
        features["train"][known["train"]], numbers["train"], num_classes=len(frozen.dataset.classes) - 1, seed=seed
    )
    weight, bias = head.weight.numpy(), head.bias.numpy()
    logits = {split: features[split] @ weight.T + bias for split in features}
    temperature = fit_temperature(logits["val"][known["val"]], numbers["val"])
    val, test = (logits[split][known[split]] / temperature for split in ("val", "test"))
    others = np.concatenate([logits[split][~known[split]] for split in logits]) / temperature
    sure = [-softmax(each).max(1).astype(np.float64) for each in (val, test, others)]
    place = min(len(val), math.ceil((len(val) + 1) * (1 - LOST))) - 1
    found = {MAX_SOFTMAX: told(sure[1], sure[2], limit=float(np.sort(sure[0])[place]))}
    for kind in KINDS:
        fitted = fit_unlike(val, numbers["val"], kind=kind)
        found[kind] = told(fitted.scores(test), fitted.scores(others), limit=fitted.limit)
    return found


def told(inside: NDArray[np.float64], outside: NDArray[np.float64], *, limit: float) -> Told:
    """Figures of one score on known and unseen pictures."""
    found = area(np.concatenate([inside, outside]), np.arange(len(inside) + len(outside)) >= len(inside))
    assert found is not None
    equal = float(np.quantile(inside, 1 - LOST))
    return Told(
        found.value, float((outside > equal).mean()), float((outside > limit).mean()), float((inside > limit).mean())
    )


def mean_of(rows: Sequence[Told]) -> Told:
    """Each figure's mean; every class counts the same."""
    return Told(*(float(np.mean([getattr(row, name) for row in rows])) for name in Told.__slots__))


if __name__ == "__main__":
    main()
