"""What is wrong with the pictures of a folder: every finding of `look`, from the files alone and with a pretrained network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foldertune.bench import Bench, of_each_class, open_bench
from foldertune.cache import cache_folder
from foldertune.data.patch import is_left_out, refuse_existing, refuse_inside, write_patch
from foldertune.data.pictures import pack_pictures
from foldertune.data.split import fold_of_units, units
from foldertune.data.stock import kept_values
from foldertune.diagnosis.balance import balance_findings
from foldertune.diagnosis.changes import Conflict, conflict_findings, find_conflicts
from foldertune.diagnosis.claims import LEAST_RELATED, claim_findings
from foldertune.diagnosis.copies import copy_findings
from foldertune.diagnosis.files import Seen, file_findings
from foldertune.diagnosis.findings import Asked, by_importance
from foldertune.diagnosis.framing import framing_findings, is_lossy
from foldertune.diagnosis.labels import find_suspects, outlier_findings, suspect_findings, with_sides
from foldertune.diagnosis.shortcuts import Appearances, shortcut_findings
from foldertune.errors import MissingError, SettingsError
from foldertune.examination import Journey, Kin, look
from foldertune.forecast import situation_of
from foldertune.machine import find_machine, num_cores
from foldertune.notes import find_note, keep_note
from foldertune.planning import DEFAULT_MODEL, DEFAULT_WEIGHTS, decide
from foldertune.preprocess import Fit, Preprocess
from foldertune.proposals import propose
from foldertune.records import SPLITS, Dataset, Examination, Finding, Interval, Picture, Progress
from foldertune.run import event
from foldertune.settings import Wish

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.models.weights import ResolvedWeights
    from foldertune.training.features import Extraction

# What takes a pretrained network, as it is called where there is none.
NEEDS_WEIGHTS = ("label_suspect", "outlier", "augmentation_conflict", "random_split")
NUM_FOLDS = 5
# So many pictures the network sees smaller, unless a size was asked for: half of the time at nearly as many wrong labels found
# (docs/log.md). Where it begins is a guess: 5,000 pictures of 224 px take about two minutes on two cores.
LARGE_SET, SMALLER_PX = 5_000, 160
_BATCH = 16
# Raised whenever the same pictures give other answers: what is kept of earlier versions is then found anew.
TRYING, SUSPECTING = 1, 1
MOST_CHANGED = 160  # pictures that each change is tried on, more where there are many classes
MOST_FRAMED = 400  # pictures that each way to meet the square is tried on


@dataclass(frozen=True, slots=True)
class Inspected:
    """What all findings are made from. folds: (N,) of the readable pictures, copies in one fold."""

    dataset: Dataset
    kin: Kin
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    asked: Asked


def inspect(wish: Wish, patch_file: Path | None = None) -> Journey[Examination]:
    """Look at a folder and say what is wrong with it. Without weights on this machine: what needs none, and what was left out.

    patch_file: where to write what mends it.
    """
    if patch_file is not None:
        refuse_existing(patch_file)
        refuse_inside(patch_file, wish.folder)
        if not patch_file.absolute().parent.is_dir():
            raise SettingsError(
                f"The folder of the patch {patch_file} does not exist. Make it, or give another --write-patch."
            )
    weights, missing = find_local_weights(wish)
    looked = yield from look(wish)
    for text in looked.notes:
        yield event("note", text=text)
    seen = inspected(looked.dataset, looked.kin, asked=asked_of(wish))
    preprocess = weights.preprocess if weights else Preprocess()
    found = list(plain_findings(seen, as_wished(preprocess, wish)))
    if weights is not None:
        machine = find_machine(wish.settings.get("device", "auto"))
        settings = wish.settings
        if sees_smaller(wish, weights.preprocess, len(looked.dataset.readable)):
            settings = {**settings, "image_size": SMALLER_PX}
            yield event("note", text=_smaller_note(len(looked.dataset.readable), weights.preprocess.image_size))
        values = decide(situation_of(looked.dataset, machine, weights.preprocess), settings).values()
        bench = open_bench(values, weights, looked.dataset, machine)
        found = [each for each in found if each.kind != "crop_loss"]
        seen_by_network, probabilities = yield from network_findings(seen, bench, changes=True)
        found = [*take_sides(seen, found, probabilities), *seen_by_network]
    left_out = () if weights else tuple(f"{kind}: {missing}" for kind in NEEDS_WEIGHTS)
    examination = examination_of(looked.dataset, found, left_out)
    if patch_file is not None:
        lines = propose(looked.dataset, examination.findings, kept=looked.patch)
        write_patch(patch_file, lines)
        waiting = sum(line.proposed for line in lines)
        yield event("patch", path=str(patch_file), num_lines=len(lines) - waiting, num_proposed=waiting)
    return examination


def examination_of(dataset: Dataset, found: Sequence[Finding], left_out: Sequence[str] = ()) -> Examination:
    """The record of a look."""
    return Examination(
        folder=str(dataset.folder),
        classes=dataset.class_counts(),
        num_pictures={split: len(dataset.of(split)) for split in SPLITS},
        split_source=dataset.split_source,
        skipped=dict(dataset.skipped),
        findings=by_importance(found),
        left_out=tuple(left_out),
    )


def find_local_weights(wish: Wish) -> tuple[ResolvedWeights | None, str]:
    """The weights that were asked for, or the default ones where they are here already; else none, and why.

    Raises MissingError where weights that were asked for cannot be had.
    """
    from foldertune.models.weights import resolve_weights

    asked = wish.settings.get("weights")
    if asked == "random":
        return None, "random weights see nothing. Give pretrained ones with --weights."
    model = wish.settings.get("model", DEFAULT_MODEL)
    if asked:
        return resolve_weights(asked, model), ""
    try:
        return resolve_weights(DEFAULT_WEIGHTS, model, download=False), ""
    except MissingError:
        return (
            None,
            f"there are no weights of {model} on this machine. Give --weights: a file, or imagenet to fetch them.",
        )


def asked_of(wish: Wish) -> Asked:
    """What remedies are commands for."""
    names = ("model", "weights", "patch", "group_by", "seed")
    given = [(name, wish.settings[name]) for name in names if name in wish.settings]  # type: ignore[literal-required]
    flags = [text for name, value in given for text in (f"--{name.replace('_', '-')}", str(value))]
    return Asked(wish.folder, tuple(flags), frozenset(path.name for path in Path().glob("patch*.csv")))


def as_wished(preprocess: Preprocess, wish: Wish) -> Preprocess:
    """The weights' own preprocessing with what was asked for instead."""
    names = ("image_size", "fit")
    return preprocess.with_changes(**{name: wish.settings[name] for name in names if name in wish.settings})  # type: ignore[literal-required]


def sees_smaller(wish: Wish, preprocess: Preprocess, num_pictures: int) -> bool:
    """Whether the network looks at smaller pictures than those it was made for."""
    return num_pictures >= LARGE_SET and preprocess.image_size > SMALLER_PX and "image_size" not in wish.settings


def _smaller_note(num_pictures: int, own_px: int) -> str:
    return (
        f"The network looks at the {num_pictures:,} pictures at {SMALLER_PX} px, which takes {(SMALLER_PX / own_px) ** 2:.0%} of the "
        f"time. Training takes {own_px} px: with --image-size {own_px} look does too, and training finds the features that it made."
    )


def inspected(dataset: Dataset, kin: Kin, *, asked: Asked) -> Inspected:
    """What findings are made from."""
    pictures = dataset.readable
    numbers = {name: number for number, name in enumerate(dataset.classes)}
    labels = np.array([numbers[picture.label] for picture in pictures], np.int64)
    by_row = fold_of_units(units(pictures, kin.together), NUM_FOLDS)
    folds = np.array([by_row[picture.row] for picture in pictures], np.int64)
    return Inspected(dataset, kin, labels, folds, asked)


def plain_findings(seen: Inspected, preprocess: Preprocess) -> Iterator[Finding]:
    """Every finding that takes no network."""
    dataset, glances, asked = seen.dataset, seen.kin.glances, seen.asked
    pictures = dataset.readable
    each = [Seen(*of_one) for of_one in zip(pictures, glances.lights, glances.files, strict=True)]
    unreadable = [picture for picture in dataset.unreadable if not is_left_out(picture)]
    yield from file_findings(each, unreadable, image_px=preprocess.image_size, asked=asked)
    # Where val was made from the train that the folder gives, its test is still given.
    yield from copy_findings(pictures, seen.kin.copies, given_splits=dataset.split_source != "made", asked=asked)
    yield from balance_findings(dataset.class_counts(), asked=asked)
    looks = Appearances(
        pictures, seen.labels, seen.folds, glances.lights, glances.files, glances.sketches, glances.thumbs
    )
    yield from shortcut_findings(looks, dataset.classes, asked=asked)
    yield from framing_findings(pictures, preprocess, gains=None, asked=asked)


# ------------------------------------------------------------------------------------------------- with a pretrained network


def network_findings(
    seen: Inspected, bench: Bench, *, changes: bool
) -> Journey[tuple[list[Finding], NDArray[np.float32]]]:
    """Every finding that takes a pretrained network, and (N, K) what a head out of fold says of each picture.

    changes: also what has to be computed on changed pictures.
    """
    dataset, cache = seen.dataset, cache_folder()
    pictures, extraction = dataset.readable, bench.extraction(cache)
    packed = yield from pack_pictures(dataset.folder, pictures, bench.preprocess, cache=cache, workers=num_cores())
    features = yield from extraction.features(pictures, packed)
    probabilities = yield from held_out_probabilities(seen, features, extraction, folds=seen.folds, num_rounds=2)
    found = [
        *(yield from tried_split(seen, features, extraction)),
        *suspect_findings(pictures, probabilities, seen.labels, classes=dataset.classes, asked=seen.asked),
        *outlier_findings(pictures, features, asked=seen.asked),
    ]
    if changes:
        chosen = of_each_class([each for each in pictures if each.split != "test"], MOST_CHANGED)
        conflicts = yield from tried_changes(chosen, bench, extraction)
        found += conflict_findings(chosen, conflicts, classes=dataset.classes, asked=seen.asked)
        gains = (yield from tried_fits(seen, bench, extraction)) if is_lossy(pictures, bench.preprocess) else None
        found += framing_findings(pictures, bench.preprocess, gains=gains, asked=seen.asked)
    return found, probabilities


def take_sides(seen: Inspected, found: Sequence[Finding], probabilities: NDArray[np.float32]) -> list[Finding]:
    """What was found without a network, with what that network decides of it."""
    return with_sides(found, seen.dataset.readable, probabilities, classes=seen.dataset.classes)


def tried_split(seen: Inspected, features: NDArray[np.float32], extraction: Extraction) -> Journey[list[Finding]]:
    """What parting relatives would have claimed."""
    from foldertune.evaluation.metrics import paired_share_difference, wilson_interval
    from foldertune.training.head import stratified_folds

    pictures, labels = seen.dataset.readable, seen.labels
    related = sum(len(unit) for unit in units(pictures, seen.kin.together) if len(unit) > 1)
    if related < LEAST_RELATED * len(pictures):
        return []
    folds = stratified_folds(labels, NUM_FOLDS, seed=0)
    apart = yield from held_out_probabilities(seen, features, extraction, folds=seen.folds)
    parted = yield from held_out_probabilities(seen, features, extraction, folds=folds)
    judged = np.flatnonzero(~np.isnan(apart + parted).any(1))
    right = [found[judged].argmax(1) == labels[judged] for found in (apart, parted)]
    accuracies = (
        wilson_interval(int(right[0].sum()), len(judged)),
        wilson_interval(int(right[1].sum()), len(judged)),
        paired_share_difference(int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum()), len(judged)),
    )
    some = [pictures[place] for place in judged]
    both = (apart[judged], parted[judged])
    return list(claim_findings(some, both, labels[judged], accuracies=accuracies, asked=seen.asked))


def held_out_probabilities(
    seen: Inspected,
    features: NDArray[np.float32],
    extraction: Extraction,
    *,
    folds: NDArray[np.int64],
    num_rounds: int = 1,
) -> Journey[NDArray[np.float32]]:
    """(N, K): what a head that was fitted to the other folds says of each picture.

    num_rounds: 2 asks once more, a head that has not learned from those that the first one suspects of a wrong label.
    """
    from foldertune.training.head import FITTING, judge_again, judge_folds, rows_of

    pictures = seen.dataset.readable
    num_pictures, num_classes = len(pictures), len(seen.dataset.classes)

    def judge() -> NDArray[np.float32]:
        rows = rows_of(features, seen.labels, num_classes=num_classes)
        first = judge_folds(rows, folds)
        if num_rounds == 1:
            return first.probabilities
        doubted = np.zeros(num_pictures, np.bool_)
        doubted[[suspect.place for suspect in find_suspects(first.probabilities, seen.labels)]] = True
        return judge_again(rows, folds, strength=first.strength, untaught=doubted)

    depends_on = {
        "labels": seen.labels.tolist(),
        "folds": folds.tolist(),
        "classes": num_classes,
        "rounds": num_rounds,
        "suspecting": SUSPECTING,
    }
    key = extraction.key(pictures, kind="judged", version=FITTING, **depends_on)
    yield Progress("labels", 0, num_pictures)
    found = yield from kept_values(
        judge, shape=(num_pictures, num_classes), dtype=np.float32, key=key, cache=extraction.cache
    )
    yield Progress("labels", num_pictures, num_pictures)
    probabilities: NDArray[np.float32] = found.copy()
    probabilities[untaught_places(seen.labels, folds)] = np.nan
    return probabilities


def untaught_places(labels: NDArray[np.int64], folds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,): pictures whose class no other fold has a picture of, so that nobody can judge them."""
    counts = np.zeros((int(labels.max()) + 1, int(folds.max()) + 1), np.int64)
    np.add.at(counts, (labels, folds), 1)
    untaught: NDArray[np.bool_] = counts[labels, folds] == counts.sum(1)[labels]
    return untaught


def tried_changes(
    chosen: Sequence[Picture], bench: Bench, extraction: Extraction
) -> Journey[Mapping[str, Sequence[Conflict]]]:
    """What each change of augmentation does to some pictures of each class."""
    key = extraction.key(chosen, kind="changes", version=TRYING, labels=[picture.label for picture in chosen])
    stored = find_note("changes", key)
    if isinstance(stored, dict):
        return {
            name: [Conflict(**{**row, "places": tuple(row["places"])}) for row in rows] for name, rows in stored.items()
        }
    packed = yield from pack_pictures(
        bench.dataset.folder, chosen, bench.preprocess, cache=extraction.cache, workers=num_cores()
    )
    pixels = packed.read(np.arange(len(chosen)))
    labels = np.array([bench.dataset.classes.index(picture.label) for picture in chosen])
    features = yield from extraction.features(chosen, packed)
    found: dict[str, Sequence[Conflict]] = {}
    for place, (name, changed) in enumerate(_CHANGES.items(), start=1):
        found[name] = find_conflicts(features, _run(bench, changed(pixels)), labels)
        yield Progress("changes", place * len(chosen), len(_CHANGES) * len(chosen))
    keep_note("changes", key, {name: [asdict(each) for each in rows] for name, rows in found.items()})
    return found


def tried_fits(seen: Inspected, bench: Bench, extraction: Extraction) -> Journey[Mapping[Fit, Interval]]:
    """What squash and letterbox earn over the crop, on some pictures of each class: accuracy of a head that has not seen them."""
    from foldertune.evaluation.metrics import paired_share_difference
    from foldertune.training.head import fit_head

    judged_by = [each for each in seen.dataset.readable if each.split != "test"]
    chosen = of_each_class(judged_by, MOST_FRAMED)
    numbers = {name: number for number, name in enumerate(seen.dataset.classes)}
    labels = np.array([numbers[picture.label] for picture in chosen], np.int64)
    fold_of = dict(zip((picture.row for picture in seen.dataset.readable), seen.folds, strict=True))
    folds = np.array([fold_of[picture.row] for picture in chosen], np.int64)
    key = extraction.key(chosen, kind="fits", version=TRYING, labels=labels.tolist(), folds=folds.tolist())
    fits: tuple[Fit, ...] = ("crop", "squash", "letterbox")
    stored = find_note("fits", key)
    if isinstance(stored, dict):
        return {fit: Interval(**stored[fit]) for fit in fits[1:]}
    right: dict[Fit, NDArray[np.bool_]] = {}
    for place, fit in enumerate(fits, start=1):
        preprocess = bench.preprocess.with_changes(fit=fit)
        packed = yield from pack_pictures(
            bench.dataset.folder, chosen, preprocess, cache=extraction.cache, workers=num_cores()
        )
        features = _run(bench, packed.read(np.arange(len(chosen))))
        head = fit_head(features, labels, num_classes=len(numbers), seed=0, folds=folds)
        right[fit] = head.probabilities.argmax(1) == labels
        yield Progress("fits", place * len(chosen), len(fits) * len(chosen))
    gains = {
        fit: paired_share_difference(
            int((right[fit] & ~right["crop"]).sum()), int((right["crop"] & ~right[fit]).sum()), len(chosen)
        )
        for fit in fits[1:]
    }
    keep_note("fits", key, {fit: asdict(gain) for fit, gain in gains.items()})
    return gains


def _run(bench: Bench, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features (N, D) of prepared pictures (N, S, S, 3)."""
    assert bench.engine is not None
    starts = range(0, len(pixels), _BATCH)
    return np.concatenate([bench.engine.run(np.ascontiguousarray(pixels[start : start + _BATCH])) for start in starts])


def _other_hue(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every hue a third of the circle further: red becomes green, green becomes blue."""
    from PIL import Image

    def turned(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        values = np.array(Image.fromarray(picture).convert("HSV"))
        values[:, :, 0] += 85  # of 256, which wrap around
        return np.asarray(Image.fromarray(values, "HSV").convert("RGB"))

    return np.stack([turned(picture) for picture in pixels])


_CHANGES: Mapping[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "mirrored": lambda pixels: pixels[:, :, ::-1],
    "turned by 90 degrees": lambda pixels: np.rot90(pixels, 1, axes=(1, 2)),
    "turned by 180 degrees": lambda pixels: np.rot90(pixels, 2, axes=(1, 2)),
    "another hue": _other_hue,
}
