"""What was wrong in the learning itself, as its losses tell: too fast, too slow, too short, too long, too hard. Pure.

Rates are held against what the automatic plan would take for the same network, layers and pictures; losses against guessing and
against the baseline, the fitted head on the frozen network.
"""

from __future__ import annotations

import math
from itertools import pairwise

from foldertune.diagnosis.case import Case, Remedy, Told, interval_of, of_epochs
from foldertune.forecast import LEAST_TRAVEL
from foldertune.records import EpochRecord

MUCH_FASTER, MUCH_SLOWER = 3.0, 0.25  # times the usual rate
FEW_STEPS = 10
IDLE_SHARE = (
    0.65  # of the epochs: with 12 pictures of a class it was 0.92, in automatic plans for 100 pictures 0.55 to 0.7
)
# How far validation surely stays below training where it is a warning: on the runs that it was chosen on 0.26 and more with 12
# pictures of a class, up to 0.11 in automatic plans for 100 pictures (docs/log.md).
FAR_APART = 0.15
KNOWN_BY_HEART = 0.03  # of the loss of guessing: pictures that are answered with this loss teach nothing more


def _rate(case: Case) -> str:
    return f"the rate {case.plan['learning_rate']:g} is {case.rate_ratio:.3g} times the usual {case.usual_rate:g}"


def _usual_rate(case: Case) -> Remedy:
    return Remedy(
        f"the usual rate for these layers and this start is {case.usual_rate:g}",
        {"learning_rate": None if case.plan["preset"] == "auto" else case.usual_rate, "beyond_guide": None},
    )


def _last_val(case: Case) -> EpochRecord | None:
    return next((record for record in reversed(case.history) if record.val_loss is not None), None)


def diverged(case: Case) -> Told | None:
    lower = Remedy(
        "a tenth of the rate", {"learning_rate": max(1e-5, case.plan["learning_rate"] / 10), "beyond_guide": None}
    )
    remedies = (_usual_rate(case), lower) if case.rate_ratio > 1.5 else (lower,)
    if case.diverged:
        text = case.diverged.partition(". ")[0]
        return Told(
            kind="diverged", severity="serious", score=1.0, sentence=f"Training diverged: {text}; {_rate(case)}.",
            evidence=of_epochs(case.history), remedies=remedies,
        )  # fmt: skip
    if not case.history or case.num_steps < FEW_STEPS:
        return None  # a few steps at the full rate always undo something
    last, first = case.history[-1], case.history[0]
    began = first.first_loss if first.first_loss is not None else case.chance_loss
    if last.train_loss < 1.5 * case.chance_loss:
        return None
    return Told(
        kind="diverged", severity="serious", score=0.97,
        sentence=f"Training diverged: it began at a loss of {began:.3g} and ended at {last.train_loss:.3g}, where guessing gives "
        f"{case.chance_loss:.3g}; {_rate(case)}.",
        evidence=of_epochs(case.history), remedies=remedies,
    )  # fmt: skip


def rate_too_high(case: Case) -> Told | None:
    if not case.history or diverged(case) is not None:
        return None
    first, last = case.history[0], case.history[-1]
    signs = []
    if (
        first.first_loss is not None
        and first.highest_loss is not None
        and first.highest_loss > 2 * first.first_loss + 0.5
    ):
        signs.append(f"the loss rose from {first.first_loss:.2f} in the first step to {first.highest_loss:.2f}")
    if first.first_loss is not None and last.train_loss > first.first_loss + 0.1:
        signs.append(f"the last epoch's loss, {last.train_loss:.2f}, is above the first step's")
    tuned, baseline = _last_val(case), case.of("baseline")
    if tuned and baseline and tuned.val_accuracy is not None and case.pretrained:
        low, _ = interval_of(baseline.accuracy, baseline.num_pictures)
        if tuned.val_accuracy < low:
            signs.append(f"validation answers {tuned.val_accuracy:.0%} right, the baseline {baseline.accuracy:.0%}")
    if last.train_accuracy < 0.5 and case.pretrained:
        signs.append(f"{last.train_accuracy:.0%} of the training pictures are answered right in the end")
    fast = case.rate_ratio >= MUCH_FASTER
    if not signs or (not fast and (len(signs) < 3 or case.num_steps < FEW_STEPS)):
        return None
    clipped = [record.clipped_share for record in case.history if record.clipped_share is not None]
    told = f"; the gradient was clipped in {sum(clipped) / len(clipped):.0%} of the steps" if clipped else ""
    score = (0.75 if fast else 0.5) + 0.06 * len(signs) + (0.05 if case.rate_ratio >= 10 else 0)
    return Told(
        kind="rate_too_high", severity="serious", score=min(0.98, score),
        sentence=f"The learning rate undid what the network knew: {'; '.join(signs)}. {_rate(case).capitalize()}{told}.",
        evidence=of_epochs(case.history),
        remedies=(_usual_rate(case), Remedy("the guide's rate for few pictures", {"learning_rate": 2e-5, "beyond_guide": None})),
    )  # fmt: skip


def _travel(case: Case) -> float:
    """Steps times rate, over the least that moves a network: below 1 it has hardly moved. For SGD nothing is known of it."""
    if case.plan["optimizer"] != "adamw" or not case.history:
        return math.inf
    return float(case.num_steps * case.plan["learning_rate"] / LEAST_TRAVEL)


def _moved(case: Case) -> str:
    moved = case.learned.get("moved")
    return f", which moved the last stage by {moved[-2]:.2%} of its length" if moved else ""


def rate_too_low(case: Case) -> Told | None:
    travel = _travel(case)
    if not case.history or case.rate_ratio > MUCH_SLOWER or travel >= 1.5:
        return None
    return Told(
        kind="rate_too_low", severity="serious", score=min(0.97, 0.75 + 0.1 * math.log10(1 / max(case.rate_ratio, 1e-3))),
        sentence=f"The learning rate hardly moved the network: {case.num_steps:,} steps{_moved(case)}. {_rate(case).capitalize()}.",
        evidence=of_epochs(case.history),
        remedies=(_usual_rate(case), Remedy("the guide's remedy for slow learning", {"learning_rate": 1e-4, "beyond_guide": None})),
    )  # fmt: skip


def too_few_steps(case: Case) -> Told | None:
    travel = _travel(case)
    least = 0.6 if case.plan["tune"] == "all" else 0.3  # the last stage alone learned with less
    if not case.history or case.rate_ratio <= MUCH_SLOWER or travel >= least:
        return None
    per_epoch = max(1, case.num_steps // len(case.history))
    enough = min(30, max(2 * len(case.history), math.ceil(case.num_steps / per_epoch / travel)))
    return Told(
        kind="too_few_steps", severity="serious", score=min(0.95, 0.7 + 0.25 * (1 - travel)),
        sentence=f"Training was too short: {case.num_steps:,} optimizer steps in {len(case.history)} "
        f"epoch{'s' * (len(case.history) > 1)}{_moved(case)}; at this rate about {math.ceil(case.num_steps / travel):,} are needed.",
        evidence=of_epochs(case.history),
        remedies=(
            Remedy("as many epochs as move the network", {"epochs": enough, "max_minutes": None}),
            Remedy("smaller batches give more steps", {"batch_size": max(2, case.plan["batch_size"] // 2)}),
        ),
    )  # fmt: skip


def _fall(case: Case) -> float:
    """By what share the training loss fell from the first epoch to the last."""
    first, last = case.history[0].train_loss, case.history[-1].train_loss
    return 1 - last / max(first, 1e-9)


def _steady(case: Case) -> bool:
    """Whether the training loss fell in nearly every epoch."""
    losses = [record.train_loss for record in case.history]
    falls = sum(later < earlier for earlier, later in pairwise(losses))
    return len(losses) >= 3 and falls >= 0.75 * (len(losses) - 1)


def _seen_accuracy(case: Case) -> float:
    """Of training pictures in the end, unchanged where that is known."""
    plain = case.plain_accuracy
    return case.history[-1].train_accuracy if plain is None else plain


def slow_convergence(case: Case) -> Told | None:
    if not case.history or _travel(case) < 0.6 or case.rate_ratio >= MUCH_FASTER:
        return None
    last = case.history[-1]
    slow = (
        _steady(case)
        and last.train_loss > 0.45 * case.chance_loss
        and _seen_accuracy(case) < 0.9
        and case.rate_ratio < 0.9
    )
    if not slow:
        return None
    return Told(
        kind="slow_convergence", severity="warning", score=min(0.9, 0.6 + 0.3 * last.train_loss / case.chance_loss),
        sentence=f"The loss fell slowly and steadily, by {_fall(case):.0%} from the first epoch to the last, and is still "
        f"{last.train_loss:.2f}, where guessing gives {case.chance_loss:.2f}. {_rate(case).capitalize()}.",
        evidence=of_epochs(case.history),
        remedies=(
            Remedy("the guide's remedy for slow learning", {"learning_rate": max(1e-4, min(5e-4, case.usual_rate)), "beyond_guide": None}),
            Remedy("twice the epochs", {"epochs": min(30, 2 * case.plan["epochs"]), "max_minutes": None}),
            Remedy("larger batches", {"batch_size": min(64, 2 * case.plan["batch_size"])}),
        ),
    )  # fmt: skip


def under_fitting(case: Case) -> Told | None:
    if not case.history or case.rate_ratio >= MUCH_FASTER or _travel(case) < 0.6:
        return None
    seen, last = _seen_accuracy(case), case.history[-1]
    chance = max(1 / max(2, len(case.classes)), _largest_share(case))
    if seen >= chance + 0.75 * (1 - chance) or slow_convergence(case) is not None:
        return None
    larger = {"resnet18": "resnet50", "resnet34": "resnet50", "resnet50": "resnet101"}.get(
        case.plan["model"], "vit_base"
    )
    remedies = [
        Remedy("twice the epochs", {"epochs": min(30, 2 * case.plan["epochs"]), "max_minutes": None}),
        Remedy("a network that can hold more", {"model": larger, "weights": None}),
    ]
    if case.plan["label_smoothing"] > 0.2:
        remedies.insert(0, Remedy("labels were smoothed strongly", {"label_smoothing": None}))
    if not case.pretrained:
        remedies.insert(0, Remedy("pretrained weights know what pictures are made of", {"weights": None}))
    return Told(
        kind="under_fitting", severity="warning", score=min(0.9, 0.5 + 0.5 * (1 - seen)),
        sentence=f"Even the training pictures were not learned: in the end {seen:.0%} of them are answered right, where guessing gives "
        f"{chance:.0%}; the loss is {last.train_loss:.2f}.",
        evidence=of_epochs(case.history), remedies=tuple(remedies),
    )  # fmt: skip


def _largest_share(case: Case) -> float:
    counts = case.class_counts.get("train", {})
    return max(counts.values(), default=0) / max(1, sum(counts.values()))


def over_fitting(case: Case) -> Told | None:
    validated = [record for record in case.history if record.val_loss is not None and record.val_accuracy is not None]
    if len(validated) < 3:
        return None
    last, seen = validated[-1], max(case.history[-1].train_accuracy, _seen_accuracy(case))
    best = min(validated, key=lambda record: record.val_loss or 0.0)
    assert last.val_loss is not None
    assert last.val_accuracy is not None
    assert best.val_loss is not None
    _, high = interval_of(last.val_accuracy, case.count("val"))
    by_heart = [record for record in case.history if record.train_loss < KNOWN_BY_HEART * case.chance_loss]
    rose = last.val_loss > 1.1 * best.val_loss + 0.02
    apart = seen >= 0.97 and high < seen - 0.02
    if not apart or not rose or len(by_heart) < max(4, IDLE_SHARE * len(case.history)):
        return None
    longest = len(validated)
    fewer = max(1, round((0.5 if best.epoch <= longest / 2 else 0.7) * case.plan["epochs"]))
    stronger = {"none": "standard", "light": "standard", "standard": "heavy"}.get(case.plan["augmentation"])
    remedies = [Remedy("30 to 50 % fewer epochs", {"epochs": fewer})]
    if stronger:
        remedies.insert(0, Remedy("pictures that vary cannot be learned by heart", {"augmentation": stronger}))
    remedies.append(Remedy("the guide's rate against over-fitting", {"learning_rate": 2e-5, "beyond_guide": None}))
    if case.count("train") < 1000 and case.plan["model"] != "resnet18":
        remedies.append(
            Remedy("a smaller network for fewer than 1,000 pictures", {"model": "resnet18", "weights": None})
        )
    return Told(
        kind="over_fitting", severity="warning" if high < seen - FAR_APART else "note",
        score=0.6 + 0.2 * (seen - last.val_accuracy) + 0.2 * len(by_heart) / len(case.history),
        sentence=f"The training pictures were learned by heart: {seen:.0%} of them are answered right and {last.val_accuracy:.0%} of the "
        f"validation pictures (95 % interval up to {high:.0%}). In {len(by_heart)} of {len(case.history)} epochs there was nothing left to "
        f"learn. The validation loss was lowest in epoch {best.epoch} of {longest}, "
        f"{best.val_loss:.3f}, and ended at {last.val_loss:.3f}; the training loss at {case.history[-1].train_loss:.3f}.",
        evidence=of_epochs(validated), remedies=tuple(remedies),
    )  # fmt: skip


def augmentation_too_strong(case: Case) -> Told | None:
    plain = case.learned.get("plain_accuracy")
    if not case.history or plain is None or case.plan["augmentation"] in ("none", "light"):
        return None
    last = case.history[-1]
    _, high = interval_of(last.train_accuracy, case.count("train"))
    gap = plain - last.train_accuracy
    if gap < 0.15 or high > plain - 0.05 or (case.plan["batch_norm"] != "frozen" and case.plan["batch_size"] <= 4):
        return None
    weaker = {"heavy": "light", "standard": "light"}[case.plan["augmentation"]]
    return Told(
        kind="augmentation_too_strong", severity="warning", score=min(0.95, 0.6 + gap),
        sentence=f"The {case.plan['augmentation']} changes of the pictures were too strong to learn through: as changed, "
        f"{last.train_accuracy:.0%} of the training pictures are answered right, as they are {plain:.0%}.",
        evidence=of_epochs(case.history),
        remedies=(
            Remedy("weaker changes", {"augmentation": weaker}),
            Remedy("none", {"augmentation": "none"}),
            Remedy("strong changes take longer to learn through", {"epochs": min(30, 2 * case.plan["epochs"]), "max_minutes": None}),
        ),
    )  # fmt: skip


COURSE = (
    diverged, rate_too_high, rate_too_low, too_few_steps, augmentation_too_strong, over_fitting, slow_convergence, under_fitting,
)  # fmt: skip
