"""What a plan will cost on this machine, and what to worry about before it starts: from facts and a short measurement.

Pure: the measuring itself is training/probe.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from foldertune.cache import memory_takes
from foldertune.machine import Machine
from foldertune.preprocess import Preprocess
from foldertune.records import Dataset, Forecast, Split

# Rate times steps below which a fine-tuned ResNet-50 has hardly moved. A guess, from two sets fine-tuned with AdamW: clothes
# stopped gaining at 0.024 and were 7 points lower at 0.008; X-rays were where they ended at 0.019, and not yet at 0.013.
LEAST_TRAVEL = 0.015
# Pictures on which the statistics of batch norms are measured: before each validation, and in the end (training/statistics.py).
SETTLED_PICTURES, SETTLED_IN_THE_END = 96, 1024
# On a processor the automatic plan takes at most about so many minutes, and so many more for each thousand pictures. Runs took up to 11 %
# longer than forecast on one machine, and up to 30 % on another whose speed wandered (docs/figures).
AUTO_MINUTES, AUTO_MINUTES_PER_1000 = 2.77, 1.084
AUTO_MINUTES_ANY = 1.3  # times that where pictures may be turned: there are four times as many to see
# The fewest epochs of all layers that earn anything; the second of a network that takes statistics and a head of its own. On seedlings
# that answered 0.66 after one epoch, 0.81 after two and 0.87 to 0.90 after four, where the baseline had 0.82.
LEAST_EPOCHS, LEAST_ADAPTING = 2, 4
MAPPED_PICTURES = 36  # at most, in a report; each costs about as much as an answer
CLOSING_S = 10.0  # fitting the head, compiling the last engine, figures, report; a guess, with which five forecasts were within 4 %
# Seconds for a multiply-add of one pass over all features (pictures x classes x values): a second head, which looks for wrong labels, and
# trials of unknown classes and of other folds, which are left out above so many. On one core 792 seedlings took 3.3 and 2.8 s, 1,833
# clothes 8 s for the trials (docs/log.md). A network's number of values is not known here; that of a ResNet-50 is taken.
SECOND_HEAD_S, TRIALS_S, WORTHWHILE, NUM_FEATURES = 1.7e-7, 2e-7, 2e8, 2048
Chosen = Mapping[str, Any]  # what a plan has decided so far: setting -> value


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a short measurement found on this machine for the network and size that the plan has chosen."""

    start_s: float  # loading the network and compiling the engine
    decode_per_s: float  # pictures
    features_per_s: float  # pictures through the frozen network
    train_per_s: float  # pictures, forward and backward
    validate_per_s: float
    memory_mib: float  # peak of the process that measured
    kept_mib: float = 0.0  # of it, what the pictures of one step keep for the way back


@dataclass(frozen=True, slots=True)
class Survey:
    """What the pretrained network says of the pictures (training/survey.py)."""

    upright_share: float  # how often it tells which way up a picture is; 0.25 is a guess
    distance: float | None  # from the pretraining pictures, 0 is none; None for networks without batch norms
    grey: bool = False  # the pictures have no colours
    swapped: float = 0.0  # the largest share of a class that lies among another one when it is mirrored


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """The facts that rules read. Counts of readable pictures; classes by their training pictures."""

    num_pictures: int
    num_train: int
    num_val: int
    num_classes: int
    largest_class: int
    smallest_class: int
    shorter_px: int  # median of the pictures' shorter sides
    weights_px: int = 224  # the preprocessing that belongs to the weights: side of the square, and how pictures meet it
    weights_fit: str = "crop"
    num_parameters: int = 25_600_000  # of the network
    machine: Machine
    probe: Probe | None = None
    survey: Survey | None = None
    whole: Probe | None = None  # of learning in all layers, where that was measured


def situation_of(dataset: Dataset, machine: Machine, preprocess: Preprocess) -> Situation:
    """The facts of a split data set and a machine.   preprocess: that of the weights."""
    counts = dataset.class_counts("train")
    return Situation(
        num_pictures=len(dataset.readable),
        num_train=len(dataset.of("train")),
        num_val=len(dataset.of("val")),
        num_classes=len(dataset.classes),
        largest_class=max(counts.values()),
        smallest_class=min(counts.values()),
        shorter_px=int(median(min(picture.width, picture.height) for picture in dataset.readable)),
        machine=machine,
        weights_px=preprocess.image_size,
        weights_fit=preprocess.fit,
    )


def forecast_run(situation: Situation, chosen: Chosen) -> Forecast:
    """Minutes, memory and disk of the whole run, from the probe."""
    assert situation.probe is not None
    canvas = 3 * min(situation.shorter_px, 1.75 * chosen["image_size"]) ** 2 * 1.33
    views = chosen["views"] * 2 * 1024 * (chosen["image_size"] / 16) ** 2
    pictures = situation.num_train * (canvas + views) + situation.num_pictures * 3 * chosen["image_size"] ** 2
    copy = 4 * situation.num_parameters
    # Three states at the worst moment, two kept and one being written: weights, two moments of AdamW, the best weights. The
    # baseline and the model beside them. In memory come after the probe the best weights, and in the end the engine that answers in
    # float32, which takes about three copies of the weights: with them nine runs held 0.97 to 1.05 of what was forecast.
    disk = pictures + (3 * 4 + 2) * copy
    return Forecast(
        minutes=seconds_of(situation, chosen) / 60,
        memory_mib=situation.probe.memory_mib + 4 * copy / 2**20,
        disk_mib=disk / 2**20,
        cache_mib=pictures / 2**20,
    )


def seconds_of(situation: Situation, chosen: Chosen) -> float:
    """Expected wall-clock seconds of a run."""
    probe = situation.probe
    assert probe is not None
    epochs = 0 if chosen["tune"] == "head" else chosen["epochs"]
    num_validations = math.ceil(epochs / chosen.get("eval_steps", 1))
    # Once to look, once to prepare, and training pictures once more for the canvases that crops are cut from.
    looks = (2 * situation.num_pictures + bool(epochs) * situation.num_train) / probe.decode_per_s
    features = situation.num_pictures / probe.features_per_s
    views = (chosen["views"] * situation.num_train + bool(chosen["views"]) * situation.num_val) / probe.features_per_s
    learning = epochs * situation.num_train / probe.train_per_s
    settled = last = 0
    if chosen["batch_norm"] != "frozen" and epochs:
        settled, last = (min(count, situation.num_train) for count in (SETTLED_PICTURES, SETTLED_IN_THE_END))
    validating = (num_validations * (situation.num_val + settled) + last) / probe.validate_per_s
    num_test = situation.num_pictures - situation.num_train - situation.num_val
    # The answers of the kept model, in float32; in the end figures and files. Where weights are blended, three looks more.
    closing = 2 * (situation.num_val + num_test) / probe.features_per_s + CLOSING_S
    closing += 3 * bool(chosen.get("blend") and epochs) * situation.num_val / probe.validate_per_s
    seconds: float = probe.start_s + looks + features + views + learning + validating + closing
    return seconds + seconds_of_heads(situation, chosen)


def seconds_of_heads(situation: Situation, chosen: Chosen) -> float:
    """Of fitting heads beside the baseline's, for findings and trials."""
    work = situation.num_pictures * situation.num_classes * NUM_FEATURES
    second = 0.0 if chosen["weights"] == "random" else SECOND_HEAD_S
    return (second + TRIALS_S * (work <= WORTHWHILE)) * work


def seconds_beside_training(probe: Probe, chosen: Chosen, counts: Mapping[Split, int], *, num_blends: int) -> float:
    """Of what stands between the baseline and the end of a run beside training itself. counts: pictures by split."""
    num_train, num_val = counts["train"], counts["val"]
    # Before the first step canvases are decoded, and views of them stored where the plan has some.
    before = num_train / probe.decode_per_s + chosen["views"] * (num_train + num_val) / probe.features_per_s
    # After the last one statistics are measured, weights blended, and all answers given once more in float32; maps are drawn.
    settled = SETTLED_PICTURES + min(SETTLED_IN_THE_END, num_train) if chosen["batch_norm"] != "frozen" else 0
    judged = (1 + num_blends * chosen["blend"]) * num_val
    answered = 1.2 * (num_val + counts["test"] + MAPPED_PICTURES) / probe.features_per_s
    after = (settled + judged) / probe.validate_per_s + answered + probe.start_s + CLOSING_S
    seconds: float = before + after
    return seconds


def minutes_allowed(situation: Situation, chosen: Chosen) -> tuple[float | None, str]:
    """The user's limit, less a reserve; on a processor without one, our own."""
    if chosen["max_minutes"]:
        return 0.85 * chosen["max_minutes"], f"85 % of the limit of {chosen['max_minutes']:g}"
    if chosen["device"] == "cpu" and chosen["weights"] != "random":
        longer = AUTO_MINUTES_ANY if chosen.get("orientation") == "any" else 1.0
        minutes = longer * (AUTO_MINUTES + AUTO_MINUTES_PER_1000 * situation.num_pictures / 1_000)
        # Which layers learn for how long does not follow from how many classes there are to fit heads for.
        minutes += seconds_of_heads(situation, chosen) / 60
        return minutes, "what a processor should take for so many pictures; --max-minutes or --epochs change it"
    return None, ""


def steps_per_epoch(situation: Situation, chosen: Chosen) -> int:
    in_a_step: int = chosen["batch_size"] * chosen["accumulate"]
    return math.ceil(situation.num_train / in_a_step)


def epochs_to_learn(situation: Situation, chosen: Chosen) -> int:
    """The fewest epochs after which AdamW has moved a network at all; at most 30."""
    rate: float = chosen["learning_rate"]
    return min(30, math.ceil(LEAST_TRAVEL / max(steps_per_epoch(situation, chosen) * rate, 1e-12)))


def warnings_of(situation: Situation, chosen: Chosen, forecast: Forecast | None) -> list[str]:
    warnings = []
    steps = chosen["epochs"] * steps_per_epoch(situation, chosen)
    travel = steps * chosen["learning_rate"]
    limit = chosen["max_minutes"]
    baseline_alone = bool(limit and forecast and seconds_of(situation, {**chosen, "tune": "head"}) > 60 * limit)
    # Measured where all layers learn; the last stage alone, from a fitted head, learned with less.
    slow = chosen["tune"] == "all" and chosen["optimizer"] == "adamw" and travel < LEAST_TRAVEL
    if slow and not baseline_alone:
        enough = epochs_to_learn(situation, chosen)
        longer = ", which takes a higher --max-minutes" * bool(limit)
        warnings.append(
            f"Too few steps to learn: {steps:,} steps at rate {chosen['learning_rate']:g} hardly move the network "
            f"(rate x steps is {travel:.3g}; {LEAST_TRAVEL:g} and more is usual). "
            f"Take --epochs {enough}{longer}, or a higher --learning-rate{', or --preset auto' * (chosen['preset'] != 'auto')}."
        )
    machine = situation.machine
    if forecast and forecast.memory_mib > machine.free_memory_mib:
        warnings.append(
            f"About {forecast.memory_mib:,.0f} MiB of memory are needed and {machine.free_memory_mib:,.0f} MiB are free. "
            "Take a smaller --batch-size or --image-size."
        )
    if forecast:
        warnings += [text for text in lacks_of_disk(forecast, machine) if text]
    if baseline_alone:
        warnings.append(
            f"The baseline alone takes longer than --max-minutes {limit:g} and is not cut short; nothing will be fine-tuned. "
            "Take a smaller --image-size, or a higher --max-minutes."
        )
    elif limit and forecast and forecast.minutes > limit:
        warnings.append(
            f"The run would take about {forecast.minutes:.1f} minutes; it will stop training early to keep to "
            f"{limit:g}. Take a smaller --image-size or --tune head."
        )
    return warnings


def lacks_of_disk(forecast: Forecast, machine: Machine) -> tuple[str, str]:
    """What is wrong with the room for the run's own files, and with that for the cache; nothing is an empty text."""
    own_mib, run, cache = forecast.disk_mib - forecast.cache_mib, "", ""
    if own_mib > machine.free_disk_mib:
        run = (
            f"The run needs about {own_mib:,.0f} MiB of disk and {machine.free_disk_mib:,.0f} MiB are free. "
            "Free space, or set --run to a disk with more of it."
        )
    room_mib = max(0.0, machine.free_cache_mib - own_mib * machine.cache_beside_run)
    if forecast.cache_mib > room_mib:
        cache = (
            f"The cache needs about {forecast.cache_mib:,.0f} MiB of disk and has room for {room_mib:,.0f} MiB. "
            "Free space, or set FOLDERTUNE_CACHE to a disk with more of it."
        )
        if fits_memory(forecast, machine):
            cache += " Memory takes its place in this run, and the next one makes everything again."
    return run, cache


def fits_memory(forecast: Forecast, machine: Machine) -> bool:
    """Whether memory can hold what would go into the cache."""
    return memory_takes(forecast.cache_mib, machine.free_memory_mib)
