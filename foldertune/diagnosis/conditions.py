"""What was wrong around the learning: pictures, labels, splits, layers, machine. Each rule rests on a measurement of its own. Pure."""

from __future__ import annotations

import math

from foldertune.diagnosis.case import (
    Case,
    Copy,
    Remedy,
    Told,
    interval_of,
    look_command,
    of_epochs,
    train_command,
)
from foldertune.records import Evidence

# Natural logarithm of variances: pictures of a low contrast are 1.6 below what a network was made on, a forgotten std is 3 below.
LEAST_SCALE_GAIN = 2.0
# With the right order t lay between -9 and -1 on two sets at 96 and 224 px, with the wrong one at as much above 0; at 64 px between
# -3 and 2.2.
LEAST_ORDER_T = 4.0
LEAST_RED = (
    0.8  # 1.58 in one ResNet-50 from ImageNet, and 0.63 the wrong way round; that other networks are alike is a guess
)
LEAST_CONTRADICTED = 0.1  # share of the surest answers: 30 % of wrong labels gave 0.2 and more, clean sets up to 0.03
# Of all labels, by two estimates, each of which is too high on hard sets, in their geometric mean: the share of the surest answers that
# is contradicted for certain, and what the order of the classes tells. On the runs that
# it was chosen on 30 % of wrong labels among 96 gave 0.24 and more, healthy ones up to 0.16 (docs/log.md).
LEAST_WRONG = 0.2
_PLACE_OF_ALIKE = 0.15  # 0.05 to 0.25 on clean sets of 3 to 10 classes
MOST_WAITED, MANY_TIMES = 0.4, 10.0
FEW_TO_VALIDATE, SOME_TO_VALIDATE = 20, 50
FEW_FOR_STATISTICS = 4  # pictures of a step; a guess, between the 2 that were measured to harm and the 8 of the guide


def wrong_normalisation(case: Case) -> Told | None:
    scales, order_t = case.inputs.get("scales"), case.inputs.get("order_t")
    evidence: tuple[Evidence, ...] = ()
    look = "look into the config.json beside the weights: its mean, std and order of colours must be those that they were made with"
    remedy = Remedy(look, {"weights": None})
    if scales:
        given = scales["given"]
        best = min((name for name in scales if name != "given"), key=lambda name: abs(scales[name]))
        gain = abs(given) - abs(scales[best])
        if gain >= LEAST_SCALE_GAIN:
            evidence = tuple(
                Evidence(name, 1.0 if name == best else 0.0, f"variance {value:+.1f} nats from the network's own")
                for name, value in sorted(scales.items(), key=lambda row: abs(row[1]))
            )
            return Told(
                kind="wrong_normalisation", severity="serious", score=0.99,
                sentence=f"The pictures reach the network in the wrong scale: its first layer meets a variance {given:+.1f} nats "
                f"from the one that it was made with; with {best} it would be {scales[best]:+.1f}.",
                evidence=evidence, remedies=(remedy,),
            )  # fmt: skip
    ratio = case.inputs.get("red_over_blue")
    surer = order_t is not None and order_t >= LEAST_ORDER_T
    if order_t is not None and (surer or (ratio is not None and ratio < LEAST_RED and order_t > -1)):
        first = f"; its first layer weighs red {ratio:.2f} times as much as blue" if ratio is not None else ""
        return Told(
            kind="wrong_normalisation", severity="serious", score=0.95 if surer else 0.85,
            sentence="The order of colours seems to be wrong: with red and blue swapped the weights' own classifier is as sure or surer "
            f"of {case.inputs['num_pictures']} pictures (t = {order_t:.1f}){first}.",
            evidence=(Evidence("red and blue swapped", 1.0, f"surer by {order_t:.1f} standard errors{first}"),), remedies=(remedy,),
        )  # fmt: skip
    return None


def label_noise(case: Case) -> Told | None:
    labels = case.labels
    num_sure = labels.get("num_sure", 0)
    if not case.pretrained or num_sure < 10:
        return None
    share = labels["num_contradicted"] / num_sure
    low, _ = interval_of(share, num_sure)
    place = labels.get("mean_place")
    by_order = low if place is None else _share_wrong(place) * (1 - labels["accuracy"])  # two classes have no order
    if share < LEAST_CONTRADICTED or math.sqrt(max(0.0, low * by_order)) < LEAST_WRONG:
        return None
    told = (
        "" if place is None else f"; where wrong, the given class stands at {place:.0%} of the way from second to last"
    )
    return Told(
        kind="label_noise", severity="serious", score=min(0.98, 0.6 + 2 * low),
        sentence=f"Labels contradict the pictures: of the {num_sure:,} training pictures that a model which had not seen them answers most "
        f"surely, {share:.0%} are filed under another class{told}.",
        evidence=case.suspects,
        remedies=(
            Remedy("look at the suspects, and relabel or exclude them", command=look_command(case)),
            Remedy("wrong labels are learned late: fewer epochs, and smoothed labels", {"epochs": _fewer(case), "label_smoothing": 0.1}),
        ),
    )  # fmt: skip


def _share_wrong(place: float) -> float:
    """Of wrong answers, the share that wrong labels must be: they stand in the middle of the order on average, alike classes at its top."""
    return min(1.0, max(0.0, (place - _PLACE_OF_ALIKE) / (0.5 - _PLACE_OF_ALIKE)))


def _fewer(case: Case) -> int:
    return max(1, int(0.6 * case.plan["epochs"] + 0.5))


def validation_leaked(case: Case) -> Told | None:
    leaked = [copy for copy in case.copies if copy.split == "val"]
    num_val = case.count("val")
    share = len({copy.other for copy in leaked}) / max(1, num_val)
    if not leaked:
        return None
    right = [copy.right for copy in leaked if copy.right is not None]
    told = ""
    if right and case.uncopied_accuracy is not None:
        told = (
            f"; of those {sum(right) / len(right):.1%} are answered right, of the others {case.uncopied_accuracy:.1%}"
        )
    few = len(leaked) < 3 and share < 0.02
    return Told(
        kind="validation_leaked", severity="note" if few else "serious", score=0.99 if share >= 0.05 else 0.8,
        sentence=f"Validation was leaked: {share:.1%} of its {num_val:,} pictures are also in training, the same or a copy{told}. "
        "Its figures flatter, and the choice between the models rests on them.",
        evidence=tuple(_pair(copy) for copy in leaked),
        remedies=(Remedy("keep each picture on one side", command=look_command(case)),),
    )  # fmt: skip


def _pair(copy: Copy) -> Evidence:
    return Evidence(copy.other, 1.0, f"in {copy.split}, shows the same", other=copy.path)


def validation_too_small(case: Case) -> Told | None:
    num_val, kept = case.count("val"), case.of(case.kept) if case.kept else None
    if num_val >= SOME_TO_VALIDATE or not case.history:
        return None
    accuracy = kept.accuracy if kept else 0.9
    low, high = interval_of(accuracy, num_val)
    counts = case.class_counts.get("val", {})
    return Told(
        kind="validation_too_small", severity="warning" if num_val < FEW_TO_VALIDATE else "note",
        score=min(0.95, 0.5 + high - low),
        sentence=f"Validation has {num_val:,} pictures of {len(case.classes):,} classes: an accuracy of {accuracy:.0%} there may mean "
        f"{low:.0%} to {high:.0%}, so that the best epoch and the kept model are chosen almost by chance.",
        evidence=tuple(
            Evidence(name, 1.0, f"{counts[name]} validation pictures", label=name)
            for name in sorted(counts, key=lambda name: counts[name])
        ),
        remedies=(Remedy(_more_to_validate(case), command=train_command(case)),),
    )  # fmt: skip


def _more_to_validate(case: Case) -> str:
    if case.split_source == "made":
        return f"more pictures: of about {round(SOME_TO_VALIDATE / 0.15):,} pictures {SOME_TO_VALIDATE} validate"
    return "put 15 % of the pictures into val, at least 10 of each class; or give no split, and it is made"


def imbalance(case: Case) -> Told | None:
    counts = case.class_counts.get("train", {})
    if len(counts) < 2 or not case.count("train"):
        return None
    largest, smallest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    ratio = counts[largest] / max(1, counts[smallest])
    kept = case.of(case.kept, "test") or case.of(case.kept)
    if ratio < MANY_TIMES / 2 or not kept:
        return None
    others = [kept.recall[name] for name in kept.recall if name != largest]
    gap = kept.recall.get(largest, 0.0) - (sum(others) / len(others) if others else 0.0)
    harmed = gap >= 0.1
    severe = ratio >= MANY_TIMES and (harmed or case.plan["imbalance"] == "none")
    if not severe and not harmed:
        return None
    treated = case.plan["imbalance"] != "none"
    mended = Remedy(
        "every class is drawn equally often" if treated else "small classes count more in the loss",
        {"imbalance": "sampling" if treated else "weights"},
    )
    rows = sorted(counts, key=lambda name: counts[name])
    return Told(
        kind="imbalance", severity="serious" if severe and harmed else "warning" if severe else "note",
        score=min(0.95, 0.5 + max(0.0, gap) + 0.02 * ratio),
        sentence=f"{largest} has {ratio:.0f} times the training pictures of {smallest}, and the imbalance setting is "
        f"{case.plan['imbalance']}: of {largest} {kept.recall.get(largest, 0.0):.0%} are recognised, of the other classes "
        f"{sum(others) / max(1, len(others)):.0%} in the mean.",
        evidence=tuple(
            Evidence(name, 1.0, f"{counts[name]:,} training pictures, {kept.recall.get(name, 0.0):.0%} recognised", label=name)
            for name in rows
        ),
        remedies=(mended, Remedy("more pictures of the small classes", command=look_command(case))),
    )  # fmt: skip


def frozen_by_mistake(case: Case) -> Told | None:
    moved = case.learned.get("moved")
    if not moved or case.plan["tune"] == "head" or not case.num_steps:
        return None
    first = case.learned["first_learning"]
    still = [stage for stage in range(first, len(moved)) if moved[stage] == 0.0]
    if not still:
        return None
    names = [_stage(stage, len(moved)) for stage in still]
    return Told(
        kind="frozen_by_mistake", severity="serious", score=0.99,
        sentence=f"The plan lets everything from {_stage(first, len(moved))} on learn, and {', '.join(names)} did not change in "
        f"{case.num_steps:,} steps.",
        evidence=tuple(
            Evidence(_stage(stage, len(moved)), 1.0 if stage in still else 0.0, f"moved by {share:.2%} of its length")
            for stage, share in enumerate(moved)
        ),
        remedies=(Remedy("train all layers; if they stay as they are again, something freezes them: report it", {"tune": "all"}),),
    )  # fmt: skip


def _stage(stage: int, num_parts: int) -> str:
    return "the head" if stage == num_parts - 1 else "the stem" if not stage else f"stage {stage}"


def batch_norm_trouble(case: Case) -> Told | None:
    if case.plan["batch_norm"] == "frozen" or not case.history or not case.plan["model"].startswith("resnet"):
        return None
    batch, plain, last = case.plan["batch_size"], case.plain_accuracy, case.history[-1]
    misplaced = plain is not None and plain < last.train_accuracy - 0.2
    if batch > FEW_FOR_STATISTICS and not misplaced:
        return None
    told = "" if plain is None else (
        f" While learning it answers {last.train_accuracy:.0%} of the training pictures right, with fixed statistics {plain:.0%}."
    )  # fmt: skip
    return Told(
        kind="batch_norm_trouble", severity="serious", score=0.97 if batch <= FEW_FOR_STATISTICS else 0.7,
        sentence=f"Batch norms take their statistics from {batch} pictures at a time, too few to tell a picture from the mean.{told}",
        evidence=of_epochs(case.history),
        remedies=(
            Remedy("batches of 16", {"batch_size": 16, "accumulate": None}),
            Remedy("the guide's way, with the statistics of the pretraining", {"preset": "documented", "batch_size": None}),
        ),
    )  # fmt: skip


def loader_starving(case: Case) -> Told | None:
    shares = [record.waited_share for record in case.history if record.waited_share is not None]
    if not shares:
        return None
    share = sorted(shares)[len(shares) // 2]
    if share < MOST_WAITED:
        return None
    speed = sorted(record.pictures_per_s for record in case.history)[len(case.history) // 2]
    more = {"workers": max(2, case.machine.get("num_cores", 2))} if case.plan["device"] != "cpu" else {}
    return Told(
        kind="loader_starving", severity="warning", score=min(0.95, 0.5 + share / 2),
        sentence=f"Learning waited {share:.0%} of its time for pictures: {speed:.1f} a second came, and without waiting it would be "
        f"{speed / max(0.02, 1 - share):.1f}.",
        evidence=tuple(
            Evidence(f"epoch {record.epoch}", waited, f"waited {waited:.0%}, {record.pictures_per_s:.1f} pictures/s")
            for record in case.history
            if (waited := record.waited_share) is not None
        ),
        remedies=(
            Remedy("more threads that make pictures; put the folder and the cache on a fast local disk (FOLDERTUNE_CACHE)", more),
            Remedy("weaker changes are made faster", {"augmentation": "light"}),
        ),
    )  # fmt: skip


def device_not_used(case: Case) -> Told | None:
    machine, device = case.machine, case.plan["device"]
    if not machine:
        return None
    best, cores, threads = machine["best_device"], machine["num_cores"], machine["num_threads"]
    if device == "cpu" and best != "cpu":
        told = f"Training ran on the processor, and this machine has a {machine['best_device_name']}"
        remedy = Remedy("take the accelerator", {"device": None})
    elif device == "cpu" and machine.get("has_gpu_driver"):
        told = "Training ran on the processor; the driver of a GPU is here, and the installed torch cannot use it"
        remedy = Remedy("install torch for this GPU, then train again")
    elif device == "cpu" and 2 * threads <= cores:
        told = f"Training used {threads} of the {cores} cores of this machine"
        remedy = Remedy(
            "OMP_NUM_THREADS or the like holds torch back: unset it",
            command=f"env -u OMP_NUM_THREADS {train_command(case)}",
        )
    else:
        return None
    row = Evidence("machine", 1.0, f"device {device}, best device {best}, {threads} threads, {cores} cores")
    return Told(
        kind="device_not_used", severity="warning", score=0.95, sentence=f"{told}.", evidence=(row,), remedies=(remedy,)
    )


CONDITIONS = (
    wrong_normalisation, label_noise, validation_leaked, validation_too_small, imbalance, frozen_by_mistake, batch_norm_trouble,
    loader_starving, device_not_used,
)  # fmt: skip
