"""A run's model in the forms that peers load, made once for each model and kept with the environments."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from environments import PEERS, PeerError, environment, peer_variables, place, reason_of
from filelock import FileLock
from picture_sets import spread_over

NUM_CALIBRATION = 100
# Form -> the environment that makes it, and the forms that it is made from.
MAKERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "onnx-float32": ("models", ()),
    "onnx-int8": ("models", ("onnx-float32",)),
    "openvino-float32": ("models", ("onnx-float32",)),
    "openvino-int8": ("models", ("openvino-float32",)),
    "hugging-face": ("models", ()),
    "ultralytics": ("torchvision", ()),
}


def model_folder(run: Path) -> Path:
    """The folder of this model's forms, with the model itself and its labels in it. Raises SystemExit for what no peer can load."""
    from foldertune.preprocess import Preprocess

    for name in ("model.safetensors", "config.json", "labels.txt", "preprocess.json"):
        if not (run / name).exists():
            raise SystemExit(f"{run} has no {name}. Give the folder of a finished run: foldertune train --run.")
    model = json.loads((run / "config.json").read_text("utf-8")).get("architecture")
    if model != "resnet50":
        raise SystemExit(
            f"The model of {run} is {model}; the peers of this benchmark are set up for resnet50. Train one."
        )
    if Preprocess.from_dict(json.loads((run / "preprocess.json").read_text("utf-8"))) != Preprocess():
        raise SystemExit(
            f"{run} has another preprocessing than {Preprocess()}, which is what the peers are set up for."
        )
    contents = (run / "model.safetensors").read_bytes() + (run / "labels.txt").read_bytes()
    contents += (PEERS / "model_files.py").read_bytes()
    folder = place("models") / hashlib.sha256(contents).hexdigest()[:12]
    folder.mkdir(exist_ok=True)
    for name in ("model.safetensors", "labels.txt"):
        shutil.copyfile(run / name, folder / name)
    return folder


def make_form(folder: Path, form: str, calibration: list[Path]) -> None:
    """Make one form, and those that it is made from, where they are not there. Raises PeerError with the reason."""
    within, needed = MAKERS[form]
    for each in needed:
        make_form(folder, each, calibration)
    made = folder / f"{form}.made"
    with FileLock(folder / "making.lock"):
        if made.exists():
            return
        command = [environment(within).python, str(PEERS / "model_files.py"), str(folder), form, *map(str, calibration)]
        done = subprocess.run(command, env=peer_variables(2), capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerError(f"its model file ({form}) could not be made: {reason_of(done.stderr)}")
        made.touch()


def calibration_pictures(run: Path) -> list[Path]:
    """Training pictures of the run, evenly chosen."""
    folder = pictures_of(run)
    with (run / "dataset.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "train" and not row["problem"]]
    return spread_over([folder / row["path"] for row in rows], min(NUM_CALIBRATION, len(rows)))


def pictures_of(run: Path) -> Path:
    """The folder that the run was trained on. Raises SystemExit where it is not there any more."""
    folder = Path(json.loads((run / "run.json").read_text("utf-8"))["folder"])
    if not folder.is_dir():
        raise SystemExit(f"The pictures of {run} are not in {folder} any more, and int8 peers are calibrated on them.")
    return folder
