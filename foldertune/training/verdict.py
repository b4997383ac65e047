"""Which of the two models is kept, judged on validation alone; the plan says who is kept at a tie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from foldertune.evaluation.metrics import (
    careful_temperature,
    fit_temperature,
    paired_difference,
    picture_losses,
    softmax,
)
from foldertune.records import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A smaller gain in log loss shows in no figure and may be the rounding of the temperature: a tie.
_TIE = 5e-4
_ENOUGH = 50  # validation pictures, to give a tie to the fine-tuned model


@dataclass(frozen=True, slots=True)
class Verdict:
    """kept: "baseline" or "fine-tuned".   gain: mean log loss of the baseline minus that of the fine-tuned model, with interval.

    temperature: what the kept model's logits are divided by, fitted on validation.   sentence: what to tell.
    """

    kept: str
    gain: Interval
    temperature: float
    sentence: str


def judge(
    baseline: NDArray[np.float32],
    tuned: NDArray[np.float32] | None,
    labels: NDArray[np.int64],
    *,
    tie: str = "baseline",
) -> Verdict:
    """baseline, tuned: logits (N, K) of the validation pictures; tuned None: nothing was fine-tuned.   labels: (N,).

    The fine-tuned model is kept if its log loss is lower beyond chance (95 %), or lower at an accuracy that is no worse. With
    tie="fine-tuned" it is kept unless its log loss is higher beyond chance, given enough pictures to tell: on fewer than 50,
    chance hides almost anything.
    Each is judged at its own best temperature, so that confidence alone wins nothing; the kept one gets a careful one.
    """
    if tuned is None or len(labels) < 2:
        temperature = careful_temperature(baseline, labels)
        few = (
            "one validation picture compares nothing"
            if len(labels)
            else "there are no validation pictures to compare on"
        )
        reason = "nothing was fine-tuned" if tuned is None else few
        return Verdict("baseline", Interval(0.0, 0.0, 0.0), temperature, f"The baseline is kept: {reason}.")
    temperatures = [fit_temperature(logits, labels) for logits in (baseline, tuned)]
    losses = [
        picture_losses(softmax(logits / temperature), labels)
        for logits, temperature in zip((baseline, tuned), temperatures, strict=True)
    ]
    accuracies = [float((logits.argmax(1) == labels).mean()) for logits in (baseline, tuned)]
    gain = paired_difference(losses[0], losses[1])
    careful = [careful_temperature(logits, labels) for logits in (baseline, tuned)]
    better = gain.value > _TIE and (gain.low > 0 or accuracies[1] >= accuracies[0])
    level = tie == "fine-tuned" and len(labels) >= _ENOUGH and gain.high >= 0
    figures = (
        f"on {len(labels):,} validation pictures it answers {accuracies[1]:.1%} correctly against {accuracies[0]:.1%}, "
        f"log loss {losses[1].mean():.3f} against {losses[0].mean():.3f}"
    )
    if better:
        return Verdict("fine-tuned", gain, careful[1], f"The fine-tuned model is kept: {figures} of the baseline.")
    if level:
        why = "validation cannot tell the two apart, and the pictures are far from those of the pretraining"
        return Verdict(
            "fine-tuned", gain, careful[1], f"The fine-tuned model is kept; {why}: {figures} of the baseline."
        )
    return Verdict("baseline", gain, careful[0], f"The baseline is kept; fine-tuning did not beat it: {figures}.")
