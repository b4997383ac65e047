"""Small trainings for two processes, and what starts those: `python crew.py FOLDER SCENARIO...` in each, with torchrun's variables."""

from __future__ import annotations

import atexit
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # exported, but not by its stubs
from trainings import COURSE, Training, made_features, made_split, thin_network

from foldertune import cli
from foldertune.data.loader import Source
from foldertune.errors import FoldertuneError, WorkFailedError
from foldertune.records import Progress, plain
from foldertune.stopping import StopRequest
from foldertune.team import ALONE, Team, join
from foldertune.training.trainer import Course, Labelled

# ------------------------------------------------------------------------------------------------------------- trainings


def course(team: Team, **changes: Any) -> Course:
    return dataclasses.replace(COURSE, **{"optimizer": "sgd", "learning_rate": 0.01, "team": team, **changes})


def twenty_steps(folder: Path, team: Team = ALONE) -> Training:
    """A ResNet-18 with frozen batch norms: 32 pictures in batches of 8, five epochs."""
    train, val = made_split(folder, 32, augmentation="standard"), made_split(folder, 9, seed=1)
    return Training(folder / "checkpoints", train, val, course=course(team, batch_size=8, epochs=5))


def uneven(folder: Path, team: Team = ALONE) -> Training:
    """13 in batches of 4: of the last batch, one picture, one process has nothing."""
    train, val = made_split(folder, 13), made_split(folder, 7, seed=1)
    return Training(folder / "checkpoints", train, val, course=course(team, epochs=3), make=thin_network)


def everything(folder: Path, team: Team = ALONE) -> Training:
    """Accumulated steps, of which the last is shorter, a moving average, class weights, AdamW."""
    chosen = course(team, optimizer="adamw", accumulate=3, ema=True, imbalance="weights", epochs=3, batch_size=3)
    train, val = made_split(folder, 22, augmentation="light"), made_split(folder, 7, seed=1)
    return Training(folder / "checkpoints", train, val, course=chosen, make=thin_network)


def statistics(folder: Path, team: Team = ALONE, *, batch_norm: str = "batch") -> Training:
    """A ResNet-18 whose batch norms adapt: 9 pictures in batches of 4, the last one of one picture."""
    chosen = course(team, batch_norm=batch_norm, epochs=2)
    return Training(folder / "checkpoints", made_split(folder, 9), made_split(folder, 7, seed=1), course=chosen)


def body(folder: Path, team: Team = ALONE) -> Training:
    return statistics(folder, team, batch_norm="body")


def head(folder: Path, team: Team = ALONE, **changes: Any) -> Training:
    """The head alone: 22 in batches of 4, six steps an epoch."""
    train, val = made_features(22, num_features=8), made_features(40, num_features=8, seed=1)
    chosen = course(team, **{"first_stage": 5, "epochs": 3, **changes})
    return Training(folder / "checkpoints", train, val, course=chosen, make=thin_network)


SAME: dict[str, Callable[[Path, Team], Training]] = {
    "twenty_steps": twenty_steps, "uneven": uneven, "everything": everything, "statistics": statistics, "body": body,
}  # fmt: skip


# ------------------------------------------------------------------------------------------- what only several can show


def straight(folder: Path, team: Team) -> None:
    """To the end, from a state where there is one."""
    made = head(folder, team)
    note(made, team, "straight", made.run)


def stopped(folder: Path, team: Team) -> None:
    """The second process is asked to stop while its tenth batch trains. A copy of the state is kept; then both go on."""
    made, stop, seen = head(folder, team), StopRequest(), iter(range(1, 1000))

    def watch(told: Any) -> None:
        if isinstance(told, Progress) and next(seen) == 10 and not team.is_first:
            stop.signal = 15

    note(made, team, "stopped", lambda: made.run(stop=stop, watch=watch))
    team.wait()
    if team.is_first:
        shutil.copytree(made.folder, folder / "kept" / "checkpoints")
    again = made.again()
    note(again, team, "resumed", again.run)


def late(folder: Path, team: Team) -> None:
    """By the second process's clock the time is over at once, by the first's after 60 looks."""
    pace = 1 if team.is_first else 1_000_000
    with mock.patch.object(time, "monotonic", side_effect=map(float, range(0, pace * 1_000_000, pace))):
        made = head(folder, team, epochs=50, deadline_s=60.0)
        note(made, team, "late", made.run)


class Spoiled:
    """A source that from the second epoch on multiplies one picture by a number, or fails at it."""

    def __init__(self, source: Source, place: int, factor: float | None) -> None:
        self.first_stage, self.num_pictures = source.first_stage, source.num_pictures
        self.source, self.place, self.factor = source, place, factor

    def batch(self, places: NDArray[np.int64], epoch: int) -> Tensor:
        x = self.source.batch(places, epoch)
        if epoch < 2 or self.place not in places:
            return x
        if self.factor is None:
            raise WorkFailedError("The cache file is shorter than it was.")
        return x * self.factor


def spoiled(folder: Path, team: Team, factor: float | None) -> Training:
    made = head(folder, team)
    made.train = Labelled(Spoiled(made.train.source, 3, factor), made.train.labels)
    return made


def poisoned(folder: Path, team: Team) -> None:
    """One picture that one process meets is not a number."""
    made = spoiled(folder, team, math.nan)
    note(made, team, "poisoned", made.run)


def failing(folder: Path, team: Team) -> None:
    spoiled(folder, team, None).run()


def endless(folder: Path, team: Team) -> None:
    head(folder, team, epochs=1_000_000, save_s=0.0).run()


TOGETHER: dict[str, Callable[[Path, Team], None]] = {
    "straight": straight, "stopped": stopped, "late": late, "poisoned": poisoned,
}  # fmt: skip
ENDING: dict[str, Callable[[Path, Team], None]] = {"failing": failing, "endless": endless}


def note(made: Training, team: Team, name: str, run: Callable[[], Any]) -> None:
    """Write what a training ended with; of an error its sentence and exit code."""
    error = None
    try:
        run()
    except FoldertuneError as caught:
        error = (str(caught), caught.exit_code)
    place = made.folder.parent / f"{name}-{team.rank}"
    save_file({key: value.contiguous() for key, value in made.network.state_dict().items()}, f"{place}.safetensors")
    Path(f"{place}.json").write_text(json.dumps({"history": plain(made.records), "error": error}))


def tell_if_still_there() -> None:
    if torch.distributed.is_initialized():
        print("The process ends without leaving the others.", file=sys.stderr)


def main(folder: Path, scenarios: list[str]) -> int:
    """As the command line does it: an error ends the process with a sentence."""
    atexit.register(tell_if_still_there)  # called after what `join` registers
    team = join()
    try:
        for name in scenarios:
            if name in SAME:
                made = SAME[name](folder / name, team)
                note(made, team, name, made.run)
            else:
                {**TOGETHER, **ENDING}[name](folder / name, team)
    except FoldertuneError as error:
        return cli._fail(error, debug=False)
    return 0


# ------------------------------------------------------------------------------------------------------------- processes


_TABLES: list[TCPStore] = []  # what torchrun has for its processes, and keeps until the last has ended


def start(folder: Path, *scenarios: str, size: int = 2) -> list[subprocess.Popen[str]]:
    """The processes, as torchrun would start them."""
    _TABLES.append(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
    port = str(_TABLES[-1].port)
    command, started = [sys.executable, __file__, str(folder), *scenarios], []
    for rank in map(str, range(size)):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        variables["TORCHELASTIC_USE_AGENT_STORE"] = str(True)
        caught = subprocess.PIPE
        started.append(
            subprocess.Popen(command, env={**os.environ, **variables}, text=True, stdout=caught, stderr=caught)
        )
    return started


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
