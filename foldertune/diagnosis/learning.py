"""From the facts of a run to what was wrong with it, the gravest and surest first. Pure.

A cause that was measured by itself (wrong labels, a wrong scale, layers that stood still) explains what the losses show; the signs
that follow from it are then told as notes.
"""

from __future__ import annotations

from dataclasses import replace

from foldertune.diagnosis.case import Case, Cause, Told, cause_of
from foldertune.diagnosis.conditions import CONDITIONS
from foldertune.diagnosis.course import COURSE
from foldertune.diagnosis.findings import by_importance

# What is seen when something else is wrong, and by what it may be explained.
SIGNS = (
    "over_fitting",
    "slow_convergence",
    "under_fitting",
    "augmentation_too_strong",
    "rate_too_high",
    "too_few_steps",
)
EXPLAINING = ("wrong_normalisation", "label_noise", "frozen_by_mistake", "batch_norm_trouble", "diverged", "imbalance")


def diagnose_case(case: Case) -> tuple[Cause, ...]:
    """What was wrong with a run, by importance. A healthy one gives nothing but perhaps notes."""
    told = [found for found in (rule(case) for rule in (*CONDITIONS, *COURSE)) if found is not None]
    explained = any(each.kind in EXPLAINING and each.severity == "serious" for each in told)
    causes = [cause_of(case, _as_sign(each) if explained else each) for each in told]
    order = [finding.kind for finding in by_importance(cause.finding for cause in causes)]
    return tuple(sorted(causes, key=lambda cause: order.index(cause.finding.kind)))


def _as_sign(told: Told) -> Told:
    return replace(told, severity="note") if told.kind in SIGNS else told


def looked_at(case: Case) -> tuple[str, ...]:
    """What a diagnosis rests on, for whoever is told that nothing was found."""
    found = []
    if case.history:
        found.append(
            f"the losses of {len(case.history)} epoch{'s' * (len(case.history) > 1)} in {case.num_steps:,} steps"
        )
    if case.learned:
        found.append("how far each stage moved")
    if case.plain_accuracy is not None:
        found.append("training pictures as they are")
    if case.labels:
        found.append(f"{case.labels.get('num_judged', 0):,} labels against answers out of fold")
    if case.inputs:
        found.append("scale and colours of the network's input")
    if case.class_counts:
        found.append("splits, copies between them and classes")
    if case.machine:
        found.append("device, cores and waiting times")
    return tuple(found)
