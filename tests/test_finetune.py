"""What fine-tuning learns from: smaller squares cut from the pictures; what it is judged by: pictures as they will be asked about."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import look, put_classes
from trainings import thin_network

from foldertune.data.split import split_pictures
from foldertune.forecast import situation_of
from foldertune.machine import Machine
from foldertune.models import build
from foldertune.models.weights import resolve_weights
from foldertune.planning import decide
from foldertune.preprocess import Preprocess
from foldertune.records import finish
from foldertune.training import finetune
from foldertune.training.baseline import prepare_material
from foldertune.training.finetune import Workplace, course_of, frozen_below, training_source, validation_source

MACHINE = Machine("cpu", "processor", 2, 24_000, 20_000, 20_000, 100_000, bf16=True)


def test_training_learns_on_a_smaller_square_and_is_judged_on_the_whole(tmp_path: Path) -> None:
    dataset = split_pictures(look(put_classes(tmp_path / "data", {"a": 8, "b": 8})), seed=1)
    plan = decide(situation_of(dataset, MACHINE, resolve_weights("random", "resnet50").preprocess), {})
    preprocess = Preprocess(image_size=plan["image_size"])
    material = finish(prepare_material(dataset, preprocess, cache=tmp_path / "cache", workers=0))
    place = Workplace(thin_network(), preprocess, material, "thin", tmp_path / "cache", tmp_path / "baseline")
    course = course_of(plan, deadline_s=math.inf)
    below = frozen_below(place, course)
    train = finish(training_source(place, plan, course, below))
    val = finish(validation_source(place, course, below))
    places = train.labels.argsort()[:2]
    assert train.source.batch(places, 1).shape == (2, 3, 192, 192)
    assert train.unchanged is not None
    assert train.unchanged.batch(places, 1).shape == (2, 3, 224, 224)
    assert val.source.batch(places, 1).shape == (2, 3, 224, 224)


def test_stored_views_are_learned_from_without_decoding_canvases_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = split_pictures(look(put_classes(tmp_path / "data", {"a": 8, "b": 8})), seed=1)
    preprocess = resolve_weights("random", "resnet18").preprocess
    plan = decide(situation_of(dataset, MACHINE, preprocess), {"model": "resnet18", "tune": "upper", "image_size": 32})
    preprocess = preprocess.with_changes(image_size=32)
    material = finish(prepare_material(dataset, preprocess, cache=tmp_path / "cache", workers=0))
    network = build("resnet18", num_classes=2)
    place = Workplace(network, preprocess, material, "w", tmp_path / "cache", tmp_path / "baseline")
    course = course_of(plan, deadline_s=math.inf)

    def batch() -> torch.Tensor:
        train = finish(training_source(place, plan, course, frozen_below(place, course)))
        return train.source.batch(np.arange(4), 1)

    first = batch()
    monkeypatch.setattr(finetune, "pack_canvases", lambda *_, **__: pytest.fail("decoded again"))
    assert torch.equal(batch(), first)
