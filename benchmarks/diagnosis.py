"""Does `foldertune diagnose` name what is wrong with a run first, and is it silent about healthy runs?

Breaks short runs in known ways on pictures of FOLDER (clothes, seedlings, ...; each with train/CLASS/), trains healthy ones beside them,
and diagnoses each from its run folder alone. Seeds below 102 are those on which the rules were written, from 102 on those on which they
are judged; a seed draws the classes, the pictures and the order of learning. Runs that are there already are only diagnosed anew.

usage: python benchmarks/diagnosis.py FOLDER [FOLDER ...] --weights resnet50.safetensors [--seeds 102 103] [--only WORD]
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from environments import place
from picture_sets import pictures_below
from PIL import Image
from tables import cell, load_now, page, parser_of, publish

ALARMING = ("serious", "warning")
HEALTHY = "healthy"
FIRST_JUDGED = 102


@dataclass(frozen=True, slots=True)
class Amounts:
    """Classes, and pictures of each class by split."""

    num_classes: int = 4
    train: int = 24
    val: int = 11
    test: int = 6


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to make a run. cause: the kind of finding that must come first; "healthy" where none may alarm.

    settings: of the training.   amounts: of the pictures.   spoil: changes the folder.   broken: while the run goes on.
    """

    name: str
    cause: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    amounts: Amounts = Amounts()
    spoil: Callable[[Path, random.Random], None] = lambda folder, chance: None
    broken: Callable[[], Any] | None = None
    weights: str = "good"

    @property
    def path(self) -> str:
        """The name as part of a file's name."""
        return self.name.replace(" ", "-").replace("%", "percent").replace(",", "")


UPPER = {"tune": "upper", "image_size": 64}
ALL = {"tune": "all", "image_size": 64}
SMALL = {"model": "resnet18", "weights": "random", "image_size": 64}


def recipes() -> list[Recipe]:
    """Every way in which runs are broken, and the healthy ones, in turn."""
    beyond = {**UPPER, "beyond_guide": True, "epochs": 4}
    broken = [
        Recipe("rate x 10", "rate_too_high", {**beyond, "learning_rate": 0.003}),
        Recipe("rate x 100", "diverged", {**beyond, "learning_rate": 0.03}),
        Recipe("rate x 0.01", "rate_too_low", {**beyond, "learning_rate": 3e-6}),
        Recipe("rate 10", "diverged", {**beyond, "learning_rate": 10.0}),
        Recipe("one epoch of large batches", "too_few_steps", {**UPPER, "epochs": 1, "batch_size": 64}),
        Recipe("30 % wrong labels", "label_noise", {**UPPER, "epochs": 5}, spoil=mislabel),
        Recipe("mean 0, std 1", "wrong_normalisation", {**UPPER, "epochs": 4}, weights="unscaled"),
        Recipe("red and blue swapped", "wrong_normalisation", {**UPPER, "epochs": 4}, weights="swapped"),
        Recipe(
            "wild augmentation", "augmentation_too_strong",
            {**ALL, "augmentation": "heavy", "batch_size": 8, "epochs": 8, "learning_rate": 2e-4}, broken=wild,
        ),
        Recipe("copies of training pictures in val", "validation_leaked", {**UPPER, "epochs": 4}, spoil=leak),
        Recipe("8 validation pictures", "validation_too_small", {**UPPER, "epochs": 5}, Amounts(4, 24, 2, 10)),
        Recipe(
            "one class has 90 %", "imbalance", {**UPPER, "imbalance": "none", "epochs": 5}, Amounts(3, 40, 10, 8), spoil=unbalance
        ),
        Recipe("all but the head frozen", "frozen_by_mistake", {**UPPER, "epochs": 4}, broken=frozen),
        Recipe(
            "batches of 2 with their own statistics", "batch_norm_trouble", {**SMALL, "batch_size": 2, "epochs": 4},
            Amounts(3, 24, 10, 6),
        ),
        Recipe("throttled loader", "loader_starving", {**UPPER, "epochs": 4}, broken=throttled),
        Recipe("three of four cores idle", "device_not_used", {**UPPER, "epochs": 4}, broken=idle_cores),
        Recipe("a GPU that was not asked for", "device_not_used", {**UPPER, "epochs": 4}, broken=idle_gpu),
        Recipe(
            "12 pictures a class, 15 epochs, none varied", "over_fitting", {**UPPER, "epochs": 15, "augmentation": "none"},
            Amounts(6, 12, 10, 5),
        ),
        Recipe("random start, labels smoothed by half", "under_fitting", {**SMALL, "label_smoothing": 0.5, "epochs": 6}),
        Recipe(
            "SGD at a fifth of its rate, random start", "slow_convergence",
            {**SMALL, "optimizer": "sgd", "learning_rate": 0.002, "beyond_guide": True, "epochs": 10}, Amounts(3, 24, 10, 6),
        ),
    ]  # fmt: skip
    healthy = [
        Recipe("healthy, 4 classes", HEALTHY, UPPER),
        Recipe("healthy, 3 classes", HEALTHY, UPPER, Amounts(3, 30, 12, 6)),
        Recipe("healthy, 6 classes", HEALTHY, UPPER, Amounts(6, 20, 9, 5)),
        Recipe("healthy, 8 classes", HEALTHY, UPPER, Amounts(8, 16, 7, 4)),
        Recipe("healthy, few pictures", HEALTHY, UPPER, Amounts(4, 16, 10, 6)),
        Recipe("healthy, somewhat uneven", HEALTHY, UPPER, Amounts(4, 26, 11, 6), spoil=tilt),
        Recipe("healthy, small batches", HEALTHY, {**UPPER, "batch_size": 8}),
        Recipe("healthy, the head alone", HEALTHY, {"tune": "head", "image_size": 96}),
        Recipe("healthy, standard augmentation", HEALTHY, {**UPPER, "augmentation": "standard"}, Amounts(5, 20, 10, 5)),
        Recipe("healthy, every layer", HEALTHY, ALL),
    ]
    mixed = [one for pair in zip(broken[::2], broken[1::2], healthy, strict=True) for one in pair]
    assert len(mixed) == len(broken) + len(healthy)
    return mixed


# ------------------------------------------------------------------------------------------------------------------ folders


RESERVED = 12  # pictures of each class that only validate


def draw_folder(folder: Path, source: Path, amounts: Amounts, chance: random.Random) -> None:
    """train, val and test with some pictures of some classes of `source`; less of anything is a part of more of it."""
    pictures = pictures_below(source)
    by_class = {
        name: [path for path in pictures if path.parent.name == name] for name in {p.parent.name for p in pictures}
    }
    enough = sorted(name for name, mine in by_class.items() if len(mine) >= 50 + RESERVED)
    chance.shuffle(enough)
    for mine in (by_class[name] for name in sorted(by_class)):
        chance.shuffle(mine)
    for name in enough[: amounts.num_classes]:
        mine = by_class[name]
        parts = {
            "train": mine[: amounts.train],
            "val": mine[-amounts.val :],
            "test": mine[-RESERVED - amounts.test : -RESERVED],
        }
        for split, chosen in parts.items():
            for path in chosen:
                target = folder / split / name / f"{path.stem}{path.suffix.lower()}"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def mislabel(folder: Path, chance: random.Random) -> None:
    """Three of ten pictures, of train and val, go to another class, each alike."""
    for split in ("train", "val"):
        pictures = pictures_below(folder / split)
        classes = sorted({path.parent.name for path in pictures})
        for path in chance.sample(pictures, round(0.3 * len(pictures))):
            other = chance.choice([name for name in classes if name != path.parent.name])
            path.rename(folder / split / other / f"moved-{path.name}")


def leak(folder: Path, chance: random.Random) -> None:
    """Half of val becomes smaller, recompressed copies of training pictures."""
    pictures = pictures_below(folder / "val")
    for path in chance.sample(pictures, len(pictures) // 2):
        source = chance.choice(pictures_below(folder / "train" / path.parent.name))
        path.unlink()
        with Image.open(source) as opened:
            picture = opened.convert("RGB")
            picture.resize((round(0.8 * picture.width), round(0.8 * picture.height))).save(
                path.with_suffix(".jpg"), quality=70
            )


def unbalance(folder: Path, chance: random.Random) -> None:
    """All classes but one keep 1 of 20 training pictures, so that one has about nine tenths."""
    classes = sorted((folder / "train").iterdir())
    for name in classes[1:]:
        for path in sorted(name.iterdir())[2:]:
            path.unlink()


def tilt(folder: Path, chance: random.Random) -> None:
    """One class has half of the pictures of the others, which is no fault."""
    name = chance.choice(sorted((folder / "train").iterdir()))
    for path in sorted(name.iterdir())[::2]:
        path.unlink()


# ------------------------------------------------------------------------------------------------------------------- faults


@contextmanager
def wild() -> Iterator[None]:
    from foldertune.data.augment import STRENGTHS

    wilder = replace(
        STRENGTHS["heavy"],
        least_area=0.04,
        aspect=3.0,
        rotation_deg=120,
        brightness=0.9,
        contrast=0.9,
        random_operations=5,
    )
    with patch.dict(STRENGTHS, heavy=wilder):
        yield


@contextmanager
def frozen() -> Iterator[None]:
    """As if a mistake in the code had frozen too much."""
    from foldertune.training import trainer

    def too_much(network: Any, first_stage: int) -> None:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(network.stage_of(name) == network.num_stages)

    with patch.object(trainer, "freeze_below", too_much):
        yield


@contextmanager
def throttled() -> Iterator[None]:
    """As from a slow network drive."""
    from foldertune.data.loader import ActivationSource

    plain = ActivationSource.batch

    def slow(self: Any, places: Any, epoch: int) -> Any:
        time.sleep(0.02 * len(places) * bool(epoch))
        return plain(self, places, epoch)

    with patch.object(ActivationSource, "batch", slow):
        yield


@contextmanager
def idle_cores() -> Iterator[None]:
    """As where OMP_NUM_THREADS holds torch back: only what is told of the machine is changed."""
    from foldertune.training import examine

    cores = 4 * vars(examine)["num_cores"]()
    with patch.object(examine, "num_cores", lambda: cores):
        yield


@contextmanager
def idle_gpu() -> Iterator[None]:
    """As on a machine with a GPU: only what is told of the machine is changed."""
    from foldertune.training import examine

    with patch.object(examine, "best_device", lambda: ("cuda", "GPU")):
        yield


def make_weights(kind: str, weights: Path, folder: Path) -> Path:
    """A folder with the weights and a config.json: good, told to be fed pixels of 0 to 1, or made for blue, green, red."""
    from foldertune.models.config import config_for
    from foldertune.preprocess import Preprocess

    target = folder / kind
    if (target / "config.json").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    if kind == "swapped":
        from safetensors.torch import load_file, save_file

        tensors = load_file(weights)
        tensors["conv1.weight"] = tensors["conv1.weight"].flip(1).contiguous()
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    else:
        shutil.copyfile(weights, target / "model.safetensors")
    preprocess = Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3) if kind == "unscaled" else Preprocess()
    config = config_for("resnet50", classes=[str(number) for number in range(1000)], preprocess=preprocess)
    (target / "config.json").write_text(json.dumps(config), "utf-8")
    return target


# --------------------------------------------------------------------------------------------------------------------- runs


@contextmanager
def quick() -> Iterator[None]:
    """Without what takes longer than such a short run: measuring speeds, which decide nothing here, and compiling engines."""
    from foldertune import bench, engines
    from foldertune.forecast import Probe
    from foldertune.training import finetune

    probe = Probe(
        start_s=3.0, decode_per_s=100.0, features_per_s=100.0, train_per_s=60.0, validate_per_s=100.0, memory_mib=1000.0
    )
    with ExitStack() as stack:
        stack.enter_context(patch.object(bench, "probed", lambda *_, **__: probe))
        for module in (engines, finetune):
            stack.enter_context(patch.object(module, "fitting_engine", lambda *_: "torch"))
        yield


def make_run(run: Path, recipe: Recipe, source: Path, weights: Path, *, seed: int) -> float:
    """Train one run; returns its seconds. A run that diverges is one too."""
    import foldertune
    from foldertune.errors import FoldertuneError

    chance = random.Random(f"{recipe.name} {source.name} {seed}")
    folder = run.with_name(f"{run.name}-pictures")
    for left in (folder, run):
        shutil.rmtree(left, ignore_errors=True)
    # Broken runs of one seed share their pictures, whose features are then in the cache; each healthy one has its own.
    shared = random.Random(f"{source.name} {seed}")
    draw_folder(folder, source, recipe.amounts, chance if recipe.cause == HEALTHY else shared)
    recipe.spoil(folder, chance)
    found = make_weights(recipe.weights, weights, run.parent.parent / "weights")
    given = {"weights": str(found), "seed": seed, "device": "cpu", **recipe.settings}
    settings = {name: value for name, value in given.items() if value is not None}
    began = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(quick())
        if recipe.broken is not None:
            stack.enter_context(recipe.broken())
        try:
            foldertune.train(folder, run=run, **settings)
        except FoldertuneError as error:
            print(f"    {error}", file=sys.stderr)
    for heavy in (run / "model.safetensors", run / "golden.npz"):
        heavy.unlink(missing_ok=True)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - began
    (run / "made.json").write_text(json.dumps({"seconds": seconds}), "utf-8")
    return seconds


@dataclass(frozen=True, slots=True)
class Judged:
    """One run with what was found: kinds with severities, the first first."""

    recipe: Recipe
    source: str
    seed: int
    found: tuple[tuple[str, str, float], ...]
    seconds: float

    @property
    def right(self) -> bool:
        if self.recipe.cause == HEALTHY:
            return not self.alarms
        return bool(self.alarms) and self.alarms[0] == self.recipe.cause

    @property
    def alarms(self) -> list[str]:
        return [kind for kind, severity, _ in self.found if severity in ALARMING]


def judge(run: Path, recipe: Recipe, source: str, seed: int) -> Judged:
    import foldertune

    found = tuple((each.kind, each.severity, each.score) for each in foldertune.diagnose(run))
    seconds = float(json.loads((run / "made.json").read_text("utf-8"))["seconds"])
    return Judged(recipe, source, seed, found, seconds)


def render(judged: Sequence[Judged]) -> list[str]:
    """The table, and what it comes to."""
    lines = ["| run | pictures | seed | first finding | others | right |", "|---|---|---|---|---|---|"]
    for each in sorted(judged, key=lambda one: (one.recipe.cause == HEALTHY, one.recipe.cause)):
        told = [f"{kind} ({severity}, {score:.2f})" for kind, severity, score in each.found]
        lines.append(
            f"| {cell(each.recipe.name)} | {each.source} | {each.seed} | {told[0] if told else 'nothing'} | {', '.join(told[1:]) or '-'} "
            f"| {'yes' if each.right else '**no**'} |"
        )
    broken = [each for each in judged if each.recipe.cause != HEALTHY]
    healthy = [each for each in judged if each.recipe.cause == HEALTHY]
    rows = [
        f"Right cause first: {sum(each.right for each in broken)} of {len(broken)} broken runs, made in "
        f"{len({each.recipe.name for each in broken})} ways.",
        f"Any alarm (serious or warning): {sum(not each.right for each in healthy)} of {len(healthy)} healthy runs.",
    ]
    return [" ".join(rows), "\n".join(lines)]


def line_of(one: Judged) -> str:
    how = "right" if one.right else "WRONG"
    return f"{how} {one.seconds:5.0f} s  {one.recipe.name} ({one.source}, {one.seed}): {one.found}"


def main() -> None:
    parser = parser_of(__doc__, "diagnosis", rounds=False)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[FIRST_JUDGED, FIRST_JUDGED + 1])
    parser.add_argument("--only", nargs="+", default=[""], help="runs whose name has one of these words")
    parser.add_argument("--made", action="store_true", help="make no run, diagnose those that are there")
    given = parser.parse_args()
    load, home = load_now(), place("diagnosis")
    judged = []
    # The first set of each recipe, then the second of each: a cut leaves every kind with some runs.
    for turn, seed in enumerate(given.seeds):
        for number, recipe in enumerate(recipes()):
            source = given.folders[(number + turn) % len(given.folders)]
            run = home / "runs" / f"{recipe.path}-{source.name}-{seed}"
            if not any(word in recipe.name for word in given.only) or (given.made and not (run / "made.json").exists()):
                continue
            if not (run / "made.json").exists():
                run.parent.mkdir(parents=True, exist_ok=True)
                make_run(run, recipe, source, given.weights, seed=seed)
            judged.append(judge(run, recipe, source.name, seed))
            print(line_of(judged[-1]), file=sys.stderr, flush=True)
    seen = [one for one in judged if one.seed < FIRST_JUDGED]
    unseen = [one for one in judged if one.seed >= FIRST_JUDGED]
    sections = [
        "Short runs, broken in known ways or healthy, each diagnosed from its run folder alone. The rules were written on seeds below "
        f"{FIRST_JUDGED} and are judged on the others. A healthy run is right where nothing serious and no warning is told."
    ]
    planned = len(recipes()) * sum(seed >= FIRST_JUDGED for seed in given.seeds)
    if len(unseen) < planned:
        sections.append(
            f"**Not whole: {len(unseen)} of {planned} runs to be judged were made.** The same command without `--made` goes on."
        )
    for title, part in (("Judged", unseen), ("On which the rules were written, for comparison", seen)):
        sections += [f"## {title}", *render(part)] if part else []
    publish("diagnosis", page("Diagnosis", sections, arguments=sys.argv, load=load), write=not given.no_page)


if __name__ == "__main__":
    main()
