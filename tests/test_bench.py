"""The bench: what is measured before the plan, in which order, what is taken from an earlier run and what is measured anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import invented_pictures
from test_features import MeanEngine

import foldertune
from foldertune import bench as bench_module
from foldertune.bench import Bench, of_each_class, open_bench, probed, probed_plan
from foldertune.forecast import Probe, Survey, situation_of
from foldertune.machine import Machine, OthersWatch
from foldertune.models.network import Network
from foldertune.models.weights import ResolvedWeights
from foldertune.planning import decide
from foldertune.preprocess import Preprocess
from foldertune.records import Dataset, Plan
from foldertune.settings import TrainSettings, Wish
from foldertune.training import probe as probe_module

MACHINE = Machine("cpu", "processor", 2, 24_000, 20_000, 20_000, 100_000, bf16=True)
SPEED = Probe(
    start_s=5, decode_per_s=0, features_per_s=40, train_per_s=15, validate_per_s=30, memory_mib=1_500, kept_mib=700
)
SETTINGS: TrainSettings = {"model": "resnet18", "image_size": 32, "workers": 0}


def dataset() -> Dataset:
    pictures = [
        replace(picture, split=("train", "train", "train", "val", "test")[picture.row % 5])
        for picture in invented_pictures({"a": 400, "b": 400})
    ]
    return Dataset(Path("pictures"), ("a", "b"), tuple(pictures), "folders")


def opened(*, machine: Machine = MACHINE, sha256: str = "1" * 64, settings: TrainSettings = SETTINGS) -> Bench:
    weights = ResolvedWeights("a file", None, Preprocess(), sha256, (), "")
    plan = decide(situation_of(dataset(), machine, weights.preprocess), settings)
    return open_bench(plan.values(), weights, dataset(), machine)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was measured, by the plan's word for the layers that learn; the pictures are far ones."""
    layers: list[str] = []
    first_stages = {0: "all", 4: "upper", 5: "head"}

    def measure(network: object, engine: object, course: object, *_: object, **__: object) -> Probe:
        layers.append(first_stages[course.first_stage])  # type: ignore[attr-defined]  # a Course
        return SPEED

    monkeypatch.setattr(probe_module, "measure", measure)
    monkeypatch.setattr(bench_module, "surveyed", lambda *_: Survey(0.9, 0.57))
    monkeypatch.setattr(OthersWatch, "took_cores", lambda _: False)
    monkeypatch.setattr(bench_module, "held_memory_mib", lambda: 500.0)
    return layers


def planned(settings: TrainSettings, *, machine: Machine = MACHINE) -> Plan:
    wish = Wish(Path("pictures"), {**SETTINGS, **settings}, {})
    return probed_plan(wish, opened(machine=machine), 500.0)[0]


@pytest.mark.parametrize(
    ("settings", "bf16", "expected", "tune"),
    [
        ({}, True, ["all"], "all"),
        ({}, False, ["all"], "all"),
        ({"max_minutes": 20.0}, True, ["all"], "all"),
        ({"max_minutes": 20.0}, False, ["all"], "all"),  # given the time, every layer
        ({"max_minutes": 4.0}, True, ["all", "upper"], "upper"),
        ({"max_minutes": 0.5}, True, ["all"], "head"),
        ({"max_minutes": 4.0, "tune": "all"}, True, ["all"], "all"),
        ({"max_minutes": 0.5, "tune": "upper"}, True, ["upper"], "upper"),
    ],
)
def test_probed_plan_measures_what_decides_and_what_was_decided(
    measured: list[str], settings: TrainSettings, bf16: bool, expected: list[str], tune: str
) -> None:
    plan = planned(settings, machine=replace(MACHINE, bf16=bf16))
    assert (plan["tune"], measured) == (tune, expected)
    assert plan.forecast is not None


def test_probed_of_the_upper_layers_after_all_of_them_is_not_kept_for_its_memory_is_theirs(measured: list[str]) -> None:
    assert planned({"max_minutes": 4.0})["tune"] == "upper"
    measured.clear()
    planned({"tune": "upper"})
    assert measured == ["upper"]


def test_plan_with_auto_layers_decides_as_without(small_run: Path) -> None:
    settings = TrainSettings(tune="auto", model="resnet18", weights="random", image_size=32, device="auto", workers=0)
    plan = foldertune.plan(small_run.parent / "pictures", **settings)
    decision = next(one for one in plan.decisions if one.setting == "tune")
    assert (decision.value, decision.source, decision.rule) == ("all", "rule", "random-start")


def test_probed_plan_again_measures_nothing(measured: list[str]) -> None:
    first = planned({})
    measured.clear()
    assert planned({}) == first
    assert measured == []


@pytest.mark.parametrize(
    "other",
    [
        lambda: opened(settings={**SETTINGS, "model": "resnet34"}),
        lambda: opened(settings={**SETTINGS, "image_size": 64}),
        lambda: opened(machine=replace(MACHINE, num_cores=4)),
        lambda: opened(machine=replace(MACHINE, device_name="another")),
    ],
)
def test_probed_of_another_network_size_or_machine_is_measured_anew(
    measured: list[str], other: Callable[[], Bench]
) -> None:
    plan = decide(situation_of(dataset(), MACHINE, Preprocess()), SETTINGS)
    probed(opened(), plan)
    probed(opened(sha256="2" * 64), plan)  # other weights of the same network are as fast
    assert measured == ["all"]
    probed(other(), plan)
    assert measured == ["all", "all"]


@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 8}, {"precision": "float32"}, {"optimizer": "sgd"}, {"ema": True}, {"tune": "upper"}],
)
def test_probed_of_another_plan_is_measured_anew_where_a_step_costs_something_else(
    measured: list[str], changes: TrainSettings
) -> None:
    situation = situation_of(dataset(), MACHINE, Preprocess())
    probed(opened(), decide(situation, SETTINGS))
    probed(opened(), decide(situation, {**SETTINGS, "learning_rate": 2e-4, "epochs": 9, "seed": 5}))
    assert len(measured) == 1
    probed(opened(), decide(situation, {**SETTINGS, **changes}))
    assert len(measured) == 2


def test_probed_on_a_processor_of_larger_batches_is_measured_once_and_takes_more_memory(measured: list[str]) -> None:
    situation = situation_of(dataset(), MACHINE, Preprocess())
    found = [probed(opened(), decide(situation, {**SETTINGS, "batch_size": size})) for size in (16, 24, 64)]
    assert len(measured) == 1
    assert [one.memory_mib for one in found] == [1_500, 1_500 + 0.5 * 700, 1_500 + 3 * 700]
    assert len({one.train_per_s for one in found}) == 1


def test_probed_with_another_number_of_threads_is_measured_anew(
    measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = decide(situation_of(dataset(), MACHINE, Preprocess()), SETTINGS)
    probed(opened(), plan)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1_000)
    probed(opened(), plan)
    assert len(measured) == 2


def test_probed_on_a_busy_machine_is_not_kept(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = decide(situation_of(dataset(), MACHINE, Preprocess()), SETTINGS)
    monkeypatch.setattr(OthersWatch, "took_cores", lambda _: True)
    for _ in range(2):
        probed(opened(), plan)
    assert len(measured) == 2


def test_probed_in_a_process_that_holds_much_is_not_kept(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory would count as that of the work, also for processes that hold nothing."""
    plan = decide(situation_of(dataset(), MACHINE, Preprocess()), SETTINGS)
    monkeypatch.setattr(bench_module, "held_memory_mib", lambda: 3_000.0)
    for _ in range(2):
        probed(opened(), plan)
    assert len(measured) == 2
    # A process that works with a large network holds several copies of it.
    monkeypatch.setattr(Network, "num_parameters", property(lambda _: 300_000_000))
    for _ in range(2):
        probed(opened(), plan)
    assert len(measured) == 3


def test_open_bench_makes_no_engine_before_the_first_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make_engine(*_: object, **named: object) -> MeanEngine:
        made.append(str(named["precision"]))
        return MeanEngine()

    monkeypatch.setattr("foldertune.engines.make_engine", make_engine)
    engine = opened().engine
    assert engine is not None
    assert (engine.name, made) == ("openvino", [])
    for _ in range(2):
        engine.run(np.zeros((1, 32, 32, 3), np.uint8))
    assert made == ["bf16"]


def test_open_bench_takes_no_more_threads_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("foldertune.machine.num_cores", lambda: 1)
    try:
        opened()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("num_classes", "most", "of_each"), [(2, 160, 40), (4, 160, 40), (30, 160, 6)])
def test_of_each_class_takes_some_of_every_class(num_classes: int, most: int, of_each: int) -> None:
    pictures = invented_pictures({f"{number:02}": 40 for number in range(num_classes)})
    counts = Counter(picture.label for picture in of_each_class(pictures, most))
    assert counts == {f"{number:02}": of_each for number in range(num_classes)}


def test_of_each_class_stops_after_a_hundred_classes_and_spreads_over_each() -> None:
    many = of_each_class(invented_pictures({f"{number:03}": 2 for number in range(150)}), 160)
    assert len({picture.label for picture in many}) == 100
    assert [picture.row for picture in of_each_class(invented_pictures({"a": 101}), 3)] == [0, 20, 40, 60, 80, 100]
