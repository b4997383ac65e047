"""Every setting of a run with its value, its reason and its rule. Pure: facts in, decisions out; nothing is measured or read here.

A rule is one function of the situation and of what was decided before it; RULES lists them in the order of deciding. What the
user says goes first and is recorded as such. The guide's values (SPEC sections 2, 3 and 5) are presets; the automatic plan
follows measurements that stand in docs/log.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foldertune import recipe
from foldertune.errors import MissingError, SettingsError
from foldertune.forecast import (
    LEAST_ADAPTING,
    LEAST_EPOCHS,
    Chosen,
    Situation,
    epochs_to_learn,
    fits_memory,
    forecast_run,
    lacks_of_disk,
    minutes_allowed,
    seconds_of,
    warnings_of,
)
from foldertune.guide import FIXED, band_of, documented_epochs, guide_takes
from foldertune.machine import Machine
from foldertune.recipe import Answer, Rule
from foldertune.records import Decision, Plan, Source
from foldertune.settings import TrainSettings

DEFAULT_MODEL, DEFAULT_WEIGHTS = "resnet50", "imagenet"
ROOMY_MIB = 2_500  # of free memory, from which on a processor learns from 16 pictures at once: runs of a ResNet-50 held up to 2,150
PATCH_PX = 16  # of every ViT in the catalogue


def decide(situation: Situation, settings: TrainSettings, *, sources: Mapping[str, Source] | None = None) -> Plan:
    """The whole plan. `sources` says for each given setting whether the user typed it or a file held it."""
    chosen: dict[str, Any] = {}
    decisions = []
    for setting, rule in RULES.items():
        if setting in settings:
            value: Any = settings[setting]  # type: ignore[literal-required]  # RULES has the TypedDict's keys
            source: Source = (sources or {}).get(setting, "user")
            decision = Decision(setting, value, _GIVEN[source], "given", source)
        else:
            value, reason, name = rule(situation, chosen)
            decision = Decision(setting, value, reason, name)
        chosen[setting] = value
        decisions.append(decision)
    refuse_contradictions(chosen)
    forecast = forecast_run(situation, chosen) if situation.probe else None
    return Plan(tuple(decisions), forecast, tuple(warnings_of(situation, chosen, forecast)))


_GIVEN: Mapping[Source, str] = {
    "user": "given by the user",
    "file": "read from the settings file",
    "compare": "set by the comparison that this run is a part of",
}


# ---------------------------------------------------------------------------------------------------------------- the rules


def _preset(_: Situation, __: Chosen) -> Answer:
    return "auto", "values that were measured to be accurate for their cost", "default"


def _model(situation: Situation, _: Chosen) -> Answer:
    num_pictures = situation.num_pictures
    others = guide_takes(num_pictures)
    if DEFAULT_MODEL in others:
        return DEFAULT_MODEL, "accurate for its cost on 1,000 to 10,000 pictures; the guide's default", "default"
    named = " or ".join(others)
    told = f"the default; for {num_pictures:,} pictures the guide takes {named}, and foldertune compare tells which is better here"
    return DEFAULT_MODEL, told, "default"


def _weights(_: Situation, __: Chosen) -> Answer:
    return DEFAULT_WEIGHTS, "a pretrained start needs far fewer pictures than a random one", "default"


def _seed(_: Situation, __: Chosen) -> Answer:
    return 0, "any fixed number makes the run repeatable", "default"


def _device(situation: Situation, _: Chosen) -> Answer:
    machine = situation.machine
    return machine.device, f"the fastest device here: {machine.device_name}", "fastest-device"


def _precision(situation: Situation, _: Chosen) -> Answer:
    machine = situation.machine
    if machine.bf16:
        return "bf16", f"this {machine.device_name} multiplies bfloat16 natively, about twice as fast", "native-bf16"
    return "float32", f"this {machine.device_name} has no native bfloat16; emulating it is slower", "native-bf16"


def _image_size(situation: Situation, _: Chosen) -> Answer:
    return situation.weights_px, "the size that belongs to the weights", "weights-size"


def _fit(situation: Situation, _: Chosen) -> Answer:
    return situation.weights_fit, "how pictures met the square when the weights were made", "weights-fit"


def _batch_size(situation: Situation, chosen: Chosen) -> Answer:
    preset = chosen["preset"]
    if preset in FIXED:
        return FIXED[preset]["batch_size"], f"the guide's value for {preset}", f"preset-{preset}"
    if preset == "documented":
        band = band_of(situation.num_pictures)
        least, most = band.batch_size
        roomy = situation.machine.accelerated and situation.machine.device_memory_mib >= 24_000
        value = most if roomy else least
        where = "" if least == most else f" ({least} to {most}; {most} from 24 GB of GPU memory)"
        return value, f"the guide's value for a {band.name} set{where}", "guide-table"
    if situation.machine.accelerated:
        batch = 64 if situation.num_train >= 4_000 else 32 if situation.num_train >= 1_000 else 16
        return batch, "fills a GPU as far as enough steps are left in an epoch", "auto-batch"
    if situation.machine.free_memory_mib < ROOMY_MIB:
        told = f"half of the usual 16, because {situation.machine.free_memory_mib:,.0f} MiB of memory are free"
        return 8, told, "memory"
    return 16, "small enough for cache and memory, large enough for steady gradients", "auto-batch"


def _accumulate(_: Situation, __: Chosen) -> Answer:
    return 1, "every batch is a step", "default"


def _epochs(situation: Situation, chosen: Chosen) -> Answer:
    preset = chosen["preset"]
    if preset in FIXED:
        return FIXED[preset]["epochs"], f"the guide's value for {preset}", f"preset-{preset}"
    if preset == "documented":
        return documented_epochs(situation.num_pictures)
    return _auto_epochs(situation, chosen)


def _auto_epochs(situation: Situation, chosen: Chosen) -> Answer:
    """What the size of the set asks for, if the time allows it."""
    passes, fewest, why_so_many = recipe.passes(situation, chosen)
    wanted = max(fewest, min(30, round(passes * (500 / max(1, situation.num_train)) ** 0.5)))
    asked = f"{situation.num_train:,} training pictures: about {passes} passes at 500, fewer as they grow{why_so_many}"
    if wanted < (moving := epochs_to_learn(situation, chosen)):
        wanted, asked = moving, f"{situation.num_train:,} training pictures: fewer passes hardly move the network"
    limit, why = minutes_allowed(situation, chosen)
    if limit is None or situation.probe is None:
        return wanted, asked, "auto-epochs"
    # Without a limit of the user's, never so few that nothing would be learned, as where the machine did other work when it was
    # measured.
    enough = LEAST_ADAPTING if recipe.leaves(situation, chosen) else LEAST_EPOCHS
    least = 1 if chosen["max_minutes"] else min(wanted, max(enough, epochs_to_learn(situation, chosen)))
    epochs = wanted

    def fits() -> bool:
        return seconds_of(situation, {**chosen, "epochs": epochs}) <= 60 * limit

    while epochs > least and not fits():
        epochs -= 1
    if not fits():
        return epochs, f"the fewest that make sense; {limit:.1f} minutes ({why}) are too short for them", "time-limit"
    if epochs == wanted:
        return wanted, asked, "auto-epochs"
    return epochs, f"what fits into {limit:.1f} minutes ({why}); {wanted} if time were no matter", "time-limit"


def _weight_decay(_: Situation, __: Chosen) -> Answer:
    return 0.01, "AdamW's usual value", "default"


def _warmup_share(_: Situation, __: Chosen) -> Answer:
    return 0.1, "a tenth of the steps, so that the first gradients do not damage the pretrained weights", "default"


def _optimizer(_: Situation, __: Chosen) -> Answer:
    return "adamw", "needs the least tuning of its rate", "default"


def _imbalance(situation: Situation, _: Chosen) -> Answer:
    ratio = situation.largest_class / max(1, situation.smallest_class)
    if ratio >= 3:
        return "weights", f"the largest class has {ratio:.1f} times the pictures of the smallest", "imbalance-from-3"
    return "none", f"the largest class has {ratio:.1f} times the pictures of the smallest", "imbalance-from-3"


def _workers(situation: Situation, _: Chosen) -> Answer:
    return min(situation.machine.num_cores, 8), "one decoding thread for each core, at most 8", "workers"


def _constant(value: Any, reason: str) -> Rule:
    def rule(_: Situation, __: Chosen) -> Answer:
        return value, reason, "default"

    return rule


RULES: Mapping[str, Rule] = {
    "preset": _preset,
    "model": _model,
    "weights": _weights,
    "seed": _seed,
    "patch": _constant(None, "no patch was given"),
    "group_by": _constant(None, "copies and bursts are kept together; no other groups were named"),
    "max_minutes": _constant(None, "no time limit was given"),
    "device": _device,
    "precision": _precision,
    "image_size": _image_size,
    "fit": _fit,
    "tune": recipe.tune,
    "batch_norm": recipe.batch_norm,
    "first_learning": recipe.first_learning,
    "head_start": recipe.head_start,
    "batch_size": _batch_size,
    "accumulate": _accumulate,
    "optimizer": _optimizer,
    "augmentation": recipe.augmentation,
    "orientation": recipe.orientation,
    "flip": recipe.flip,
    "hue": _constant(True, "hues vary by a few degrees, which no class here was seen to depend on"),
    "views": recipe.views,
    "train_size": recipe.train_size,
    "learning_rate": recipe.learning_rate,
    "blend": recipe.blend,
    "eval_steps": _constant(1, "after every epoch, as the guide recommends"),
    "epochs": _epochs,
    "layer_decay": recipe.layer_decay,
    "head_factor": recipe.head_factor,
    "weight_decay": _weight_decay,
    "warmup_share": _warmup_share,
    "label_smoothing": recipe.label_smoothing,
    "keep_within": recipe.keep_within,
    "tie": recipe.tie,
    "ema": _constant(False, "the best validated epoch is kept instead"),
    "imbalance": _imbalance,
    "early_stop": _constant(0, "the rate falls to almost nothing by the last epoch; the best one is kept"),
    "workers": _workers,
    "save_minutes": _constant(2.0, "an interruption costs at most two minutes of training"),
}


def refuse_contradictions(chosen: Chosen) -> None:
    """Raise SettingsError for values that cannot go together, of a whole plan or of what the user gave."""
    if chosen.get("precision") == "fp16" and chosen.get("device") == "cpu":
        raise SettingsError("Precision fp16 is for GPUs; on a processor take float32 or bf16.")
    if chosen.get("tune") == "head" and chosen.get("preset", "auto") != "auto":
        raise SettingsError(f"The preset {chosen['preset']} trains every layer; leave out --tune head, or the preset.")
    if chosen.get("model", "").startswith("vit") and chosen.get("image_size", 224) % PATCH_PX:
        raise SettingsError(
            f"Image size is {chosen['image_size']}. A ViT takes multiples of {PATCH_PX}, such as 224 or 384."
        )


def refuse_too_little(plan: Plan, machine: Machine) -> None:
    """Stop before money is spent where memory or disk cannot suffice."""
    forecast = plan.forecast
    if forecast:
        run, cache = lacks_of_disk(forecast, machine)
        if run or (cache and not fits_memory(forecast, machine)):
            raise MissingError(run or cache)
    if forecast and forecast.memory_mib > machine.memory_mib:
        raise MissingError(
            f"The run needs about {forecast.memory_mib:,.0f} MiB of memory; this machine has {machine.memory_mib:,.0f} MiB. "
            "Take a smaller --batch-size or --image-size."
        )
