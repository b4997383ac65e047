"""How a network moves away from its pretrained weights: which layers learn, how fast, on which views, and how far it may go.

Each function is a rule of planning.RULES. The guide trains every layer alike; what the automatic plan does instead depends on how
near the pictures are to the pretraining ones, and follows measurements that stand in docs/log.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from foldertune.forecast import (
    LEAST_ADAPTING,
    LEAST_EPOCHS,
    Chosen,
    Probe,
    Situation,
    minutes_allowed,
    seconds_of,
)
from foldertune.guide import FIXED, band_of

# Below this share of pictures whose upright side the frozen network finds, they have none that matters. Measured on 24 to
# 80 pictures: plants from above 0.25 to 0.28, clothes laid out 0.54 to 0.65, X-rays 0.92 to 0.98.
ANY_BELOW = 0.4
# From this distance on the pictures are of another world than the pretraining ones. Measured from ImageNet: clothes 0.26, plants
# from above 0.48, X-rays 0.57; on the last two a head and batch statistics of their own answered better, on clothes worse.
FAR_FROM = 0.37
# Crops of half to the whole area show things 1.15 times as large in the mean, those of "light" 1.08 times. Learning on a square
# smaller by so much evens that out. Source: Touvron et al. 2019, "Fixing the train-test resolution discrepancy".
REDUCED, LEAST_REDUCED_PX = 6 / 7, 192

# Passes over 500 pictures. Where time is no matter a guess; on a processor what suffices for all layers (docs/log.md): near pictures, which
# gained a point from a third epoch, far ones, and far ones without an upright side, of which there are four times as many to see.
PASSES = 12
PASSES_NEAR, PASSES_FAR, PASSES_ANY = 5, 4, 7

VIEWS = 2  # augmented ones of each picture whose activations are cached
# How much faster the last stage learns from cached activations than what the plan trains else: on two machines 61 pictures a second
# against 19.5 (docs/figures/steps.md), and 45 to 60 against 20 to 25 (docs/log.md).
UPPER_FASTER = 2.4

# Points of test accuracy over the baseline's, in the mean of the sets (docs/log.md), near the pretraining pictures and far from them.
GAINED_NEAR = {"all": 1.2}  # the last stage alone earned nothing there
GAINED_FAR = {"upper": 8.6, "all": 11.0}
# Points that a minute more must earn. A guess: waiting longer for less is worth it to few.
WORTH = 0.2
_LAYERS = {"upper": "the last stage", "all": "every layer"}

Answer = tuple[Any, str, str]  # value, reason, name of the rule
Rule = Callable[[Situation, Chosen], Answer]


def tune(situation: Situation, chosen: Chosen) -> Answer:
    if chosen["preset"] != "auto":
        return "all", "the guide trains every layer", f"preset-{chosen['preset']}"
    if chosen["weights"] == "random":
        return "all", "a random start has no features that could stay as they are", "random-start"
    if chosen["device"] != "cpu" and not chosen["max_minutes"]:
        return "all", "the device is fast enough to train every layer, which earns the most", "tune-by-device"
    if situation.whole is None:
        return "all", "every layer earns the most; how fast it learns here was not measured", "default"
    return _tune_by_gain(situation, chosen, situation.whole)


def _tune_by_gain(situation: Situation, chosen: Chosen, whole: Probe) -> Answer:
    """The layers whose gain is worth their minutes: from the head upwards, what fits and earns enough for each minute more.

    whole: what was measured of learning in all layers.
    """
    limit, why = minutes_allowed(situation, chosen) if chosen["max_minutes"] else (math.inf, "")
    assert limit is not None
    far = _is_far(situation)
    minutes, epochs = _minutes_of_each(situation, chosen, whole)
    best, earned = "head", 0.0
    for layers, points in (GAINED_FAR if far else GAINED_NEAR).items():
        if minutes[layers] <= limit and points - earned >= WORTH * (minutes[layers] - minutes[best]):
            best, earned = layers, points
    kind = "far from" if far else "like"
    told = f"at {whole.train_per_s:.1f} pictures a second as measured"
    within = f", and fit into {limit:.1f} minutes ({why})" * bool(why)
    if best != "head":
        return (
            best,
            f"{_LAYERS[best]} earned {earned:.1f} points on pictures {kind} the pretraining ones: the fewest epochs that are of use, "
            f"{epochs[best]}, take {minutes[best] - minutes['head']:.1f} minutes more than the head alone {told}{within}",
            "tune-by-gain",
        )
    nothing = (
        f"nothing could be fine-tuned in {limit:.1f} minutes ({why})"
        if why
        else "fine-tuning earns too little for its time"
    )
    return "head", f"{nothing}, {told}", "tune-by-gain"


def _minutes_of_each(situation: Situation, chosen: Chosen, whole: Probe) -> tuple[dict[str, float], dict[str, int]]:
    """Minutes of a run that trains the head, the last stage or all layers for the fewest useful epochs; and those epochs."""
    far = _is_far(situation)
    same = {"blend": not far, "epochs": LEAST_ADAPTING if far else LEAST_EPOCHS, "views": 0}
    settings: dict[str, dict[str, Any]] = {
        "head": {**same, "batch_norm": "frozen", "epochs": 0},
        "upper": {**same, "batch_norm": "frozen", "views": VIEWS},
        "all": {**same, "batch_norm": "batch" if far else "frozen"},
    }
    speed = {"head": 1.0, "upper": UPPER_FASTER, "all": 1.0}
    minutes = {}
    for layers, changes in settings.items():
        probe = replace(whole, train_per_s=speed[layers] * whole.train_per_s)
        minutes[layers] = seconds_of(replace(situation, probe=probe), {**chosen, **changes, "tune": layers}) / 60
    return minutes, {layers: changes["epochs"] for layers, changes in settings.items()}


def batch_norm(situation: Situation, chosen: Chosen) -> Answer:
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


def first_learning(_: Situation, chosen: Chosen) -> Answer:
    pretrained = chosen["preset"] == "auto" and chosen["weights"] != "random"
    if pretrained and chosen["tune"] == "all" and chosen["device"] == "cpu" and chosen["batch_norm"] != "body":
        return (
            2,
            "edges and textures are known; without learning them a step costs a fifth less, and epochs earn more",
            "stage-by-device",
        )
    return 0, "every layer of what is tuned learns", "default"


def head_start(_: Situation, chosen: Chosen) -> Answer:
    if chosen["batch_norm"] != "frozen":
        return "zero", "a head fitted to frozen features does not fit those that batch statistics give", "head-start"
    return "fitted", "from the baseline's head on, no epoch is spent on finding one", "head-start"


def head_factor(_: Situation, chosen: Chosen) -> Answer:
    if adapts(chosen):
        return 10.0, "a head from nothing on a network that knows much has to catch up", "head-start"
    return 1.0, "the head learns as fast as the stage below it", "default"


def learning_rate(situation: Situation, chosen: Chosen) -> Answer:
    preset = chosen["preset"]
    if preset in FIXED:
        return FIXED[preset]["learning_rate"], f"the guide's value for {preset}", f"preset-{preset}"
    if preset == "documented":
        band = band_of(situation.num_pictures)
        return band.learning_rate, f"the guide's value for a {band.name} set", "guide-table"
    return auto_learning_rate(chosen)


def auto_learning_rate(chosen: Chosen) -> Answer:
    if chosen["optimizer"] == "sgd":
        return 0.01, "SGD with momentum wants rates about a hundred times AdamW's", "auto-rate"
    if chosen["weights"] == "random":
        return 1e-3, "a random start has no features to preserve", "random-start"
    if adapts(chosen):
        rate = 3e-4 if chosen["orientation"] == "any" else 2e-4
        told = "pictures far from the pretraining ones need the network to move further, most where they are turned"
        return rate, told, "far-pictures"
    if chosen["tune"] == "upper":
        return (
            3e-4,
            "the last stage alone bears a higher rate than all layers; at 1e-3 clothes stayed under the baseline",
            "auto-rate",
        )
    return (
        1e-4,
        "twice the guide's 5e-5; with frozen batch norms 3e-4 undid the fitted head in the first epoch",
        "auto-rate",
    )


def layer_decay(_: Situation, chosen: Chosen) -> Answer:
    if chosen["preset"] != "auto":
        return 1.0, "the guide uses one rate for all layers", f"preset-{chosen['preset']}"
    if chosen["weights"] == "random":
        return 1.0, "from a random start every layer has as much to learn", "random-start"
    if adapts(chosen):
        return (
            1.0,
            "on pictures far from the pretraining ones the lower of the layers that learn have as much to learn",
            "far-pictures",
        )
    return (
        0.9,
        "lower layers hold more general features; a stronger decay kept pictures unlike ImageNet's from learning",
        "auto-decay",
    )


def augmentation(situation: Situation, chosen: Chosen) -> Answer:
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


def orientation(situation: Situation, chosen: Chosen) -> Answer:
    if chosen["preset"] != "auto":
        return "upright", "the guide turns pictures by small angles only", f"preset-{chosen['preset']}"
    if chosen["augmentation"] == "none":
        return "upright", "without augmentation no picture is changed", "orientation"
    if situation.survey is None:
        return "upright", "not measured: that takes pretrained weights and a few pictures", "orientation"
    told = f"the pretrained network tells which way up {situation.survey.upright_share:.0%} of the pictures are (a guess: 25 %)"
    return "any" if _may_be_turned(situation) else "upright", told, "orientation"


def flip(situation: Situation, chosen: Chosen) -> Answer:
    if chosen["augmentation"] == "none":
        return False, "without augmentation no picture is changed", "flip"
    if chosen["preset"] != "auto":
        return True, "the guide mirrors pictures", f"preset-{chosen['preset']}"
    if situation.survey is None:
        return True, "not measured: that takes pretrained weights and a few pictures", "flip"
    share = situation.survey.swapped
    if share:
        return False, f"{share:.0%} of the pictures of a class look like another class when they are mirrored", "flip"
    return True, "no class looks like another one when it is mirrored, as far as some pictures tell", "flip"


def views(situation: Situation, chosen: Chosen) -> Answer:
    if chosen["tune"] != "upper":
        return 0, "nothing is cached between the stages", "views"
    if chosen["augmentation"] == "none":
        return 1, "without augmentation every view is the same", "views"
    return VIEWS, "augmented views of each picture whose activations are cached", "views"


def train_size(_: Situation, chosen: Chosen) -> Answer:
    size = chosen["image_size"]
    pretrained = chosen["preset"] == "auto" and chosen["weights"] != "random" and chosen["tune"] == "all"
    cropped = chosen["augmentation"] != "none" and chosen["model"].startswith("resnet")
    if not pretrained or not cropped or size < LEAST_REDUCED_PX:
        return size, "the size of the network's input", "default"
    return (
        32 * round(size * REDUCED / 32),
        "random crops enlarge what they show: at this size it is as large as in whole pictures, and a step costs a quarter less",
        "train-size",
    )


def passes(situation: Situation, chosen: Chosen) -> tuple[int, int, str]:
    """How often 500 training pictures should be seen, the fewest epochs of any number, and why so few."""
    in_no_hurry = bool(chosen["max_minutes"]) or chosen["device"] != "cpu"
    if in_no_hurry or chosen["preset"] != "auto" or chosen["weights"] == "random":
        return PASSES, 3, ""
    if not _is_far(situation):
        return PASSES_NEAR, LEAST_EPOCHS, "; on a processor more earn too little for their time, --epochs takes them"
    one_more = chosen["tune"] == "upper"
    number = (PASSES_ANY if _may_be_turned(situation) else PASSES_FAR) + one_more
    return number, LEAST_ADAPTING, "; on sets like these more answered no better"


def label_smoothing(_: Situation, chosen: Chosen) -> Answer:
    if chosen["weights"] == "random":
        return 0.1, "keeps a network that learns everything from few pictures from growing too sure", "random-start"
    return 0.0, "few epochs from a fitted head need no smoothing; the temperature is fitted at the end", "default"


def blend(situation: Situation, chosen: Chosen) -> Answer:
    if chosen["weights"] == "random":
        return False, "random weights are no place to go back to", "random-start"
    if chosen["preset"] != "auto":
        return False, "the guide keeps the fine-tuned weights as they are", f"preset-{chosen['preset']}"
    if leaves(situation, chosen):
        return False, "on far pictures the fine-tuned weights did best as they are", "far-pictures"
    return (
        True,
        "how far to go from the pretrained weights is chosen on validation; less far often answers better",
        "blend",
    )


def tie(situation: Situation, chosen: Chosen) -> Answer:
    if leaves(situation, chosen):
        return (
            "fine-tuned",
            "frozen features were learned on other pictures; where validation cannot tell, test pictures could",
            "far-pictures",
        )
    return "baseline", "what fine-tuning did not earn is not kept", "default"


def keep_within(situation: Situation, chosen: Chosen) -> Answer:
    if leaves(situation, chosen):
        return (
            2.0,
            "while the rate is high, far pictures of another day can be lost unseen by validation: of epochs that it cannot tell "
            "apart (two standard errors) the last is kept",
            "far-pictures",
        )
    return 0.0, "the highest validation accuracy, and of equals the lower log loss", "default"


def _is_far(situation: Situation) -> bool:
    """Whether the pictures are of another world than the pretraining ones; where nobody looked, no."""
    survey = situation.survey
    return survey is not None and survey.distance is not None and survey.distance >= FAR_FROM


def _may_be_turned(situation: Situation) -> bool:
    """Whether the pictures have no upright side; where nobody looked, no."""
    return situation.survey is not None and situation.survey.upright_share < ANY_BELOW


def leaves(situation: Situation, chosen: Chosen) -> bool:
    """Whether a pretrained network leaves for pictures so far that the frozen features, and validation, know little of them."""
    pretrained = chosen["preset"] == "auto" and chosen["weights"] != "random"
    return pretrained and chosen["tune"] != "head" and _is_far(situation)


def adapts(chosen: Chosen) -> bool:
    """Whether pretrained batch norms take statistics of their own, as for far pictures."""
    return bool(chosen["batch_norm"] != "frozen" and chosen["weights"] != "random")
