"""How long does it take to answer a folder of pictures, from the start of the process to the written file, against the peers?

Two sets of JPEGs, 500x375 and 4032x3024, made from the pictures that the run was trained on. What is not known here goes
to `foldertune predict`; each --variant adds a row of ours with other flags. Answers are compared with those of ONNX Runtime in
float32, whose pictures are the same as ours but for large ones, which are decoded scaled.

usage: python benchmarks/predict.py RUN [--variant "--precision float32"] [--pictures 400] [--large-pictures 60] [--times 5] [FLAGS]
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contest import Contestant, hold, our_variables, peer
from environments import PeerError, peer_variables
from model_forms import calibration_pictures, make_form, model_folder, pictures_of
from picture_sets import make_set, pictures_below
from tables import IN_TURN, Row, Scale, load_now, parser_of, publish, render, rows_of
from tables import page as page_of

OURS = "foldertune"
REFERENCE = "ONNX Runtime float32, Pillow"
SAME_TO = 1e-4
TORCH = ("torch", "torchvision")
ONNX = ("onnxruntime", "numpy", "pillow")
OPENVINO = ("openvino", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class Tool:
    """A peer: its script and further flags, the environment, the packages to be named, and the form of the model that it loads."""

    name: str
    script: str
    within: str
    packages: tuple[str, ...]
    form: str = ""
    flags: tuple[str, ...] = ()
    remark: str = ""


ULTRALYTICS = ("ultralytics", *TORCH)
OVERLAPPED = "overlapped, compiled model cached"
TOOLS = (
    Tool("torchvision script", "predict_torchvision.py", "torchvision", TORCH, remark="batches of 32"),
    Tool("torchvision script, tuned", "predict_torchvision.py", "torchvision", TORCH, "", ("--tuned",), "bf16, channels-last"),
    Tool("timm", "predict_timm.py", "timm", ("timm", *TORCH), remark="batches of 32"),
    Tool("Hugging Face pipeline", "predict_transformers.py", "transformers", ("transformers", *TORCH), "hugging-face"),
    Tool("Ultralytics", "predict_ultralytics.py", "ultralytics", ULTRALYTICS, "ultralytics", (), "as found: one thread fewer than cores"),
    Tool("Ultralytics, all threads", "predict_ultralytics.py", "ultralytics", ULTRALYTICS, "ultralytics", ("--threads",)),
    Tool(REFERENCE, "predict_onnxruntime.py", "onnxruntime", ONNX, "onnx-float32", (), "an expert's plain script"),
    Tool("ONNX Runtime int8", "predict_onnxruntime_int8.py", "onnxruntime", ONNX, "onnx-int8", (), "scaled decoding by 2 threads"),
    Tool("OpenVINO float32", "predict_openvino.py", "openvino", OPENVINO, "openvino-float32", ("float32",), OVERLAPPED),
    Tool("OpenVINO bf16", "predict_openvino.py", "openvino", OPENVINO, "openvino-float32", ("bf16",), OVERLAPPED),
    Tool("OpenVINO int8", "predict_openvino.py", "openvino", OPENVINO, "openvino-int8", ("int8",), OVERLAPPED),
)  # fmt: skip


def main() -> None:
    parser = parser_of(__doc__, "predict")
    parser.add_argument("run", type=Path)
    parser.add_argument("--variant", action="append", default=[], metavar="FLAGS", help="a further row of ours")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--large-pictures", type=int, default=60)
    parser.add_argument("--only", nargs="+", help="peers whose names contain one of these words, besides the reference")
    given, further = parser.parse_known_args()
    given.run = given.run.absolute()
    load, models = load_now(), model_folder(given.run)
    tools = chosen(given.only)
    problems = prepare(models, tools, calibration_pictures(given.run))
    sources = pictures_below(pictures_of(given.run))
    sections = [f"Whole processes, {given.threads} threads, from the start to the written file. {IN_TURN}"]
    with tempfile.TemporaryDirectory() as scratch:
        for name, count, size in (
            ("small", given.pictures, (500, 375)),
            ("large", given.large_pictures, (4032, 3024)),
        ):
            if count:
                folder = make_set(Path(scratch, name), sources, count, size)
                found = contest(given, further, models, folder, [(tool, problems.get(tool.form, "")) for tool in tools])
                sections.append(f"## {count} JPEGs of {size[0]}x{size[1]}\n\n{found}")
    text = page_of("Predict a folder", sections, arguments=sys.argv, load=load)
    publish("predict", text, write=not given.no_page)


def chosen(only: Sequence[str] | None) -> list[Tool]:
    """All peers, or those asked for and the one that answers are compared with."""
    return [
        tool
        for tool in TOOLS
        if not only or tool.name == REFERENCE or any(w.lower() in tool.name.lower() for w in only)
    ]


def prepare(models: Path, tools: Sequence[Tool], calibration: list[Path]) -> dict[str, str]:
    """Make every form of the model that is needed; returns form -> why it could not be made."""
    problems = {}
    for form in dict.fromkeys(tool.form for tool in tools if tool.form):
        try:
            make_form(models, form, calibration)
        except PeerError as error:
            problems[form] = str(error)
    return problems


def contest(
    given: argparse.Namespace, further: Sequence[str], models: Path, pictures: Path, tools: list[tuple[Tool, str]]
) -> str:
    """One set answered by all: the table, and what the answers have to do with one another."""
    variables = peer_variables(given.threads)
    contestants: list[Contestant] = []
    outputs: dict[str, Path] = {}
    for flags in ([*further], *(variant.split() for variant in given.variant)):
        name = " ".join([OURS, *flags])
        outputs[name] = pictures / f"{len(outputs)}.csv"
        command = [sys.executable, "-m", "foldertune", "predict", str(given.run), str(pictures), *flags]
        command += ["--output", str(outputs[name])]
        contestants.append(Contestant(name, command, our_versions(), variables=our_variables(variables)))
    for tool, problem in tools:
        outputs[tool.name] = pictures / f"{len(outputs)}.csv"
        arguments = [models, pictures, outputs[tool.name], str(given.threads), *tool.flags]
        if problem:
            contestants.append(Contestant(tool.name, remark=tool.remark, problem=problem))
        else:
            contestants.append(
                peer(tool.name, tool.script, arguments, within=tool.within, packages=tool.packages, remark=tool.remark)
            )
    hold(contestants, times=given.times, variables=variables)
    answers = {name: read_answers(path) for name, path in outputs.items() if path.exists()}
    rows = [with_answers(row, answers) for row in rows_of(contestants)]
    return render(rows, Scale("s", 2), ours=contestants[0].name)


def our_versions() -> str:
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("foldertune", *OPENVINO))


Answers = dict[str, tuple[str, float]]  # name of the file -> class, probability


def read_answers(path: Path) -> Answers:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream)
        # Ours may refuse an answer; what is compared is what it would have been.
        return {
            Path(row["path"]).name: (row.get("likeliest") or row["class"], float(row["probability"])) for row in rows
        }


def compare(answers: Answers, reference: Answers) -> tuple[float, float]:
    """(share of pictures with the same class, largest difference of probability among those). Raises PeerError where files differ."""
    if answers.keys() != reference.keys():
        missing = len(reference.keys() - answers.keys())
        raise PeerError(f"{missing} of {len(reference)} pictures have no answer")
    same = [name for name, (label, _) in reference.items() if answers[name][0] == label]
    largest = max((abs(answers[name][1] - reference[name][1]) for name in same), default=0.0)
    return len(same) / len(reference), largest


def with_answers(row: Row, answers: dict[str, Answers]) -> Row:
    """The row, with what its answers have in common with the reference's."""
    if row.tool not in answers or REFERENCE not in answers or row.tool == REFERENCE:
        return row
    try:
        share, largest = compare(answers[row.tool], answers[REFERENCE])
    except PeerError as error:
        return replace(row, problem="; ".join(filter(None, [row.problem, str(error)])))
    told = f"answers as the reference: {share:.1%}, probabilities to {largest:.1e}"
    if share == 1 and largest <= SAME_TO:
        told = f"same answers to {SAME_TO:.0e} ({largest:.1e})"
    return replace(row, remark="; ".join(filter(None, [row.remark, told])))


if __name__ == "__main__":
    main()
