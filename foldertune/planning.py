"""Every setting of a run with its value, its reason and its rule. Pure: facts in, decisions out; nothing is measured or read here.

A rule is one function of the situation and of what was decided before it; RULES lists them in the order of deciding. What the
user says goes first and is recorded as such. The guide's values (SPEC sections 2, 3 and 5) are presets; the automatic plan
follows measurements that stand in docs/log.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from foldertune.errors import SettingsError
from foldertune.forecast import Chosen, Situation, forecast_run, seconds_of, warnings_of
from foldertune.guide import FIXED, band_of, documented_epochs
from foldertune.records import Decision, Plan, Source
from foldertune.settings import TrainSettings

# On a processor the automatic plan takes about so many minutes, and so many more for each thousand pictures.
AUTO_MINUTES, AUTO_MINUTES_PER_1000 = 3.2, 0.9
AUTO_MINUTES_ANY = 1.2  # times that where pictures may be turned: there are four times as many to see
# Below this share of pictures whose upright side the frozen network finds, they have none that matters. Measured on 24 to
# 80 pictures: plants from above 0.25 to 0.28, clothes laid out 0.54 to 0.65, X-rays 0.92 to 0.98.
ANY_BELOW = 0.4
# From this distance on the pictures are of another world than the pretraining ones. Measured from ImageNet: clothes 0.26, plants
# from above 0.48, X-rays 0.57; on the last two a head and batch statistics of their own answered better, on clothes worse.
FAR_FROM = 0.37
DEFAULT_MODEL, DEFAULT_WEIGHTS = "resnet50", "imagenet"

Answer = tuple[Any, str, str]  # value, reason, name of the rule
Rule = Callable[[Situation, Chosen], Answer]


def decide(situation: Situation, settings: TrainSettings, *, sources: Mapping[str, Source] | None = None) -> Plan:
    """The whole plan. `sources` says for each given setting whether the user typed it or a file held it."""
    chosen: dict[str, Any] = {}
    decisions = []
    for setting, rule in RULES.items():
        if setting in settings:
            value: Any = settings[setting]  # type: ignore[literal-required]  # RULES has the TypedDict's keys
            source: Source = (sources or {}).get(setting, "user")
            reason = "given by the user" if source == "user" else "read from the settings file"
            decision = Decision(setting, value, reason, "given", source)
        else:
            value, reason, name = rule(situation, chosen)
            decision = Decision(setting, value, reason, name)
        chosen[setting] = value
        decisions.append(decision)
    _refuse_contradictions(chosen)
    forecast = forecast_run(situation, chosen) if situation.probe else None
    return Plan(tuple(decisions), forecast, tuple(warnings_of(situation, chosen, forecast)))


# ---------------------------------------------------------------------------------------------------------------- the rules


def _preset(_: Situation, __: Chosen) -> Answer:
    return "auto", "values that were measured to be accurate for their cost", "default"


def _model(_: Situation, __: Chosen) -> Answer:
    return DEFAULT_MODEL, "accurate for its cost on 1,000 to 10,000 pictures; the guide's default", "default"


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


def _image_size(_: Situation, __: Chosen) -> Answer:
    return 224, "what the pretrained weights were trained on", "weights-size"


def _fit(_: Situation, __: Chosen) -> Answer:
    return "crop", "how the pretrained weights were evaluated", "weights-fit"


def _tune(situation: Situation, chosen: Chosen) -> Answer:
    if chosen["preset"] != "auto":
        return "all", "the guide trains every layer", f"preset-{chosen['preset']}"
    if chosen["weights"] == "random":
        return "all", "a random start has no features that could stay as they are", "random-start"
    if chosen["device"] != "cpu" or situation.machine.bf16:
        return "all", "the device is fast enough to train every layer, which earns the most", "tune-by-device"
    return (
        "upper",
        "without bf16 this processor trains every layer too slowly; the lower ones run once and are cached",
        "tune-by-device",
    )


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
    wanted = max(3, min(30, round(12 * (500 / max(1, situation.num_train)) ** 0.5)))
    asked = f"{situation.num_train:,} training pictures: about 12 passes at 500, fewer as they grow"
    limit, why = _minutes_allowed(situation, chosen)
    if limit is None or situation.probe is None:
        return wanted, asked, "auto-epochs"
    least = 1 if chosen["max_minutes"] else 2
    epochs = wanted
    while epochs > least and seconds_of(situation, {**chosen, "epochs": epochs}) > 60 * limit:
        epochs -= 1
    if epochs == wanted:
        return wanted, asked, "auto-epochs"
    return epochs, f"what fits into {limit:.1f} minutes ({why}); {wanted} if time were no matter", "time-limit"


def _minutes_allowed(situation: Situation, chosen: Chosen) -> tuple[float | None, str]:
    """The user's limit, less a reserve; on a processor without one, our own."""
    if chosen["max_minutes"]:
        return 0.85 * chosen["max_minutes"], f"85 % of the limit of {chosen['max_minutes']:g}"
    if chosen["device"] == "cpu" and chosen["weights"] != "random":
        longer = AUTO_MINUTES_ANY if chosen["orientation"] == "any" else 1.0
        minutes = longer * (AUTO_MINUTES + AUTO_MINUTES_PER_1000 * situation.num_pictures / 1_000)
        return minutes, "what a processor should take for so many pictures; --max-minutes or --epochs change it"
    return None, ""


def _learning_rate(situation: Situation, chosen: Chosen) -> Answer:
    preset = chosen["preset"]
    if preset in FIXED:
        return FIXED[preset]["learning_rate"], f"the guide's value for {preset}", f"preset-{preset}"
    if preset == "documented":
        band = band_of(situation.num_pictures)
        return band.learning_rate, f"the guide's value for a {band.name} set", "guide-table"
    return _auto_learning_rate(chosen)


def _auto_learning_rate(chosen: Chosen) -> Answer:
    if chosen["optimizer"] == "sgd":
        return 0.01, "SGD with momentum wants rates about a hundred times AdamW's", "auto-rate"
    if chosen["weights"] == "random":
        return 1e-3, "a random start has no features to preserve", "random-start"
    if _adapts(chosen):
        rate = 3e-4 if chosen["orientation"] == "any" else 2e-4
        told = "pictures far from the pretraining ones need the network to move further, most where they are turned"
        return rate, told, "far-pictures"
    if chosen["tune"] == "upper":
        return 1e-3, "the last stage alone bears, and needs, a higher rate than the guide's 5e-5", "auto-rate"
    return (
        1e-4,
        "twice the guide's 5e-5; with frozen batch norms 3e-4 undid the fitted head in the first epoch",
        "auto-rate",
    )


def _layer_decay(_: Situation, chosen: Chosen) -> Answer:
    if chosen["preset"] != "auto":
        return 1.0, "the guide uses one rate for all layers", f"preset-{chosen['preset']}"
    if chosen["weights"] == "random":
        return 1.0, "from a random start every layer has as much to learn", "random-start"
    if _adapts(chosen):
        return 1.0, "on pictures far from the pretraining ones the lower layers have as much to learn", "far-pictures"
    return (
        0.9,
        "lower layers hold more general features; a stronger decay kept pictures unlike ImageNet's from learning",
        "auto-decay",
    )


def _head_factor(_: Situation, chosen: Chosen) -> Answer:
    if _adapts(chosen):
        return 10.0, "a head from nothing on a network that knows much has to catch up", "head-start"
    return 1.0, "the head learns as fast as the stage below it", "default"


def _weight_decay(_: Situation, __: Chosen) -> Answer:
    return 0.01, "AdamW's usual value", "default"


def _warmup_share(_: Situation, __: Chosen) -> Answer:
    return 0.1, "a tenth of the steps, so that the first gradients do not damage the pretrained weights", "default"


def _label_smoothing(_: Situation, chosen: Chosen) -> Answer:
    if chosen["weights"] == "random":
        return 0.1, "keeps a network that learns everything from few pictures from growing too sure", "random-start"
    return 0.0, "few epochs from a fitted head need no smoothing; the temperature is fitted at the end", "default"


def _optimizer(_: Situation, __: Chosen) -> Answer:
    return "adamw", "needs the least tuning of its rate", "default"


def _augmentation(situation: Situation, chosen: Chosen) -> Answer:
    preset = chosen["preset"]
    if preset == "auto" and _is_far(situation) and not _may_be_turned(situation):
        return (
            "standard",
            "on far pictures colours and small turns must vary, or brightness is what is learned",
            "far-pictures",
        )
    if preset == "auto":
        return (
            "light",
            "few epochs do not over-fit; stronger changes cost accuracy in so short a training",
            "auto-augmentation",
        )
    band = band_of(situation.num_pictures)
    return band.augmentation, f"the guide's strength for a {band.name} set", "guide-table"


def _orientation(situation: Situation, chosen: Chosen) -> Answer:
    if chosen["preset"] != "auto":
        return "upright", "the guide turns pictures by small angles only", f"preset-{chosen['preset']}"
    if chosen["augmentation"] == "none":
        return "upright", "without augmentation no picture is changed", "orientation"
    if situation.survey is None:
        return "upright", "not measured: that takes pretrained weights and a few pictures", "orientation"
    told = f"the pretrained network tells which way up {situation.survey.upright_share:.0%} of the pictures are (a guess: 25 %)"
    return "any" if _may_be_turned(situation) else "upright", told, "orientation"


def _views(situation: Situation, chosen: Chosen) -> Answer:
    if chosen["tune"] != "upper":
        return 0, "nothing is cached between the stages", "views"
    if chosen["augmentation"] == "none":
        return 1, "without augmentation every view is the same", "views"
    return 2, "augmented views of each picture whose activations are cached", "views"


def _batch_norm(situation: Situation, chosen: Chosen) -> Answer:
    if chosen["weights"] == "random":
        return "batch", "a random start has no statistics to keep", "random-start"
    if chosen["preset"] == "auto" and chosen["tune"] == "all" and _is_far(situation):
        assert situation.survey is not None
        told = f"the pictures are far from the pretraining ones (variances differ by a factor of e^{situation.survey.distance:.2f})"
        if situation.survey.grey:
            return "body", f"{told}; the stem's channels for colours say nothing on grey ones and stay", "far-pictures"
        return "batch", told, "far-pictures"
    return (
        "frozen",
        "the fitted head goes on with the features it was fitted to, and few epochs suffice",
        "auto-batch-norm",
    )


def _may_be_turned(situation: Situation) -> bool:
    """Whether the pictures have no upright side; where nobody looked, no."""
    return situation.survey is not None and situation.survey.upright_share < ANY_BELOW


def _adapts(chosen: Chosen) -> bool:
    """Whether pretrained batch norms take statistics of their own, as for far pictures."""
    return bool(chosen["batch_norm"] != "frozen" and chosen["weights"] != "random")


def _is_far(situation: Situation) -> bool:
    """Whether the pictures are of another world than the pretraining ones; where nobody looked, no."""
    survey = situation.survey
    return survey is not None and survey.distance is not None and survey.distance >= FAR_FROM


def _tie(_: Situation, chosen: Chosen) -> Answer:
    if _adapts(chosen):
        return (
            "fine-tuned",
            "frozen features were learned on other pictures; where validation cannot tell, test pictures could",
            "far-pictures",
        )
    return "baseline", "what fine-tuning did not earn is not kept", "default"


def _first_learning(situation: Situation, chosen: Chosen) -> Answer:
    near = chosen["batch_norm"] == "frozen" and chosen["preset"] == "auto" and situation.survey is not None
    if near and chosen["tune"] == "all" and chosen["device"] == "cpu":
        return (
            2,
            "edges and textures of near pictures are known; a step costs a fifth less without learning them",
            "near-pictures",
        )
    return 0, "every layer of what is tuned learns", "default"


def _head_start(_: Situation, chosen: Chosen) -> Answer:
    if chosen["batch_norm"] != "frozen":
        return "zero", "a head fitted to frozen features does not fit those that batch statistics give", "head-start"
    return "fitted", "from the baseline's head on, no epoch is spent on finding one", "head-start"


def _blend(_: Situation, chosen: Chosen) -> Answer:
    if chosen["weights"] == "random":
        return False, "random weights are no place to go back to", "random-start"
    if chosen["preset"] != "auto":
        return False, "the guide keeps the fine-tuned weights as they are", f"preset-{chosen['preset']}"
    if _adapts(chosen):
        return False, "with statistics of their own the fine-tuned weights did best as they are", "far-pictures"
    return (
        True,
        "how far to go from the pretrained weights is chosen on validation; less far often answers better",
        "blend",
    )


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
    "max_minutes": _constant(None, "no time limit was given"),
    "device": _device,
    "precision": _precision,
    "image_size": _image_size,
    "fit": _fit,
    "tune": _tune,
    "batch_norm": _batch_norm,
    "first_learning": _first_learning,
    "head_start": _head_start,
    "batch_size": _batch_size,
    "accumulate": _accumulate,
    "optimizer": _optimizer,
    "augmentation": _augmentation,
    "orientation": _orientation,
    "views": _views,
    "learning_rate": _learning_rate,
    "blend": _blend,
    "eval_steps": _constant(1, "after every epoch, as the guide recommends"),
    "epochs": _epochs,
    "layer_decay": _layer_decay,
    "head_factor": _head_factor,
    "weight_decay": _weight_decay,
    "warmup_share": _warmup_share,
    "label_smoothing": _label_smoothing,
    "tie": _tie,
    "ema": _constant(False, "the best validated epoch is kept instead"),
    "imbalance": _imbalance,
    "early_stop": _constant(0, "the rate falls to almost nothing by the last epoch; the best one is kept"),
    "workers": _workers,
    "save_minutes": _constant(2.0, "an interruption costs at most two minutes of training"),
}


def _refuse_contradictions(chosen: Chosen) -> None:
    if chosen["precision"] == "fp16" and chosen["device"] == "cpu":
        raise SettingsError("Precision fp16 is for GPUs; on a processor take float32 or bf16.")
    if chosen["tune"] == "head" and "epochs" in chosen and chosen["preset"] != "auto":
        raise SettingsError(f"The preset {chosen['preset']} trains every layer; leave out --tune head, or the preset.")
