"""The probe: positive rates, a network that comes out as it went in, each part at its own size, and a step that does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from trainings import COURSE, ThinNetwork, thin_network

from foldertune.engines.torch import Graph, TorchEngine
from foldertune.errors import MissingError
from foldertune.forecast import Probe
from foldertune.models.network import Network
from foldertune.preprocess import Preprocess
from foldertune.training import probe
from foldertune.training.trainer import Trainer

PREPROCESS = Preprocess(image_size=64)


def measured(network: Network, **changes: object) -> Probe:
    course = replace(COURSE, learning_rate=0.0, **changes)  # type: ignore[arg-type]  # names of the course
    engine = TorchEngine(Graph(network, PREPROCESS, outputs=("features",)))
    return probe.measure(network, engine, course, PREPROCESS, train_size=32, canvas=(80, 70))


@pytest.mark.parametrize("batch_norm", ["frozen", "body", "batch"])
def test_measure_finds_rates_and_leaves_the_network_as_it_was(batch_norm: str) -> None:
    network = thin_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = measured(network, batch_norm=batch_norm)
    assert min(found.features_per_s, found.train_per_s, found.validate_per_s, found.memory_mib) > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_measure_trains_on_the_smaller_square_and_validates_on_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[bool, int]] = set()
    real = ThinNetwork.run_stage

    def run_stage(self: ThinNetwork, stage: int, x: Tensor) -> Tensor:
        if stage == 0 and len(x) == COURSE.batch_size:
            seen.add((torch.is_grad_enabled(), x.shape[-1]))
        return real(self, stage, x)

    monkeypatch.setattr(ThinNetwork, "run_stage", run_stage)
    measured(thin_network())
    assert seen == {(True, 32), (False, 64)}


def test_measure_tells_what_a_step_keeps_and_it_grows_with_the_batch() -> None:
    kept = [measured(thin_network(), batch_size=size).kept_mib for size in (4, 8)]
    assert 0 < kept[0] < kept[1]
    assert kept[1] == pytest.approx(2 * kept[0], rel=0.05)


def test_measure_of_a_step_that_does_not_fit_says_what_to_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Trainer, "micro_batch", no_room)
    with pytest.raises(MissingError) as caught:
        measured(thin_network(), batch_size=16)
    assert str(caught.value) == (
        "A step of 16 pictures at 32 px does not fit into the memory of the device cpu. "
        "Take --batch-size 8, a smaller --image-size, or --device cpu."
    )
    assert caught.value.exit_code == 4
