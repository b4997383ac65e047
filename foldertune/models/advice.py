"""When to take which network: the guides' advice as facts to show, next to what a run then measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Advice:
    """strengths: what the network is known for.   take_when: signs that it is the right one, any of them."""

    strengths: tuple[str, ...]
    take_when: tuple[str, ...]


ADVICE: Mapping[str, Advice] = {
    "resnet18": Advice(
        ("the fastest to train and to run", "least prone to over-fitting on few pictures"),
        ("under 1,000 pictures", "speed is critical", "a simple task", "limited resources", "rapid experiments"),
    ),
    "resnet34": Advice(
        ("deeper than ResNet-18 with the same plain blocks",),
        ("ResNet-18 falls short and ResNet-50 is too heavy",),
    ),
    "resnet50": Advice(
        (
            "accuracy for its cost",
            "works from about 500 pictures",
            "stable training",
            "the widest ecosystem",
            "about 100 MB",
        ),
        (
            "1,000 to 10,000 pictures (against a ViT: 500 to 5,000)",
            "accuracy and speed both count",
            "a proven, stable solution is wanted",
            "nothing else is known: it is the default",
        ),
    ),
    "resnet101": Advice(
        ("more accurate than ResNet-50 where there is enough data", "fine-grained classes"),
        ("over 10,000 pictures", "fine-grained classes", "about twice the training time is acceptable"),
    ),
    "resnet152": Advice(
        ("the deepest of the family",),
        ("ResNet-101 still gains from depth, and time and memory are no matter",),
    ),
    "vit_base": Advice(
        ("sees the whole picture at once (global context)", "gains more than a ResNet from large sets"),
        ("over 5,000 pictures", "most accuracy counts", "a GPU of 8 GB and more", "global context helps"),
    ),
    "vit_large": Advice(
        ("the most capacity of the catalogue",),
        ("very large sets", "a large GPU, and time is no matter"),
    ),
}
