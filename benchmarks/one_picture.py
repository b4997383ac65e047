"""How long does one picture take in a warm process, from the bytes of a JPEG to the answer, against the peers?

Each process answers many pictures one by one and tells its median; the processes run in turn. Ours also tells the time of its
engine alone and of decoding alone.

usage: python benchmarks/one_picture.py RUN [--count 200] [--times 5] [--size 500x375]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from contest import Contestant, hold, our_variables, peer
from environments import PEERS, peer_variables
from model_forms import calibration_pictures, model_folder, pictures_of
from picture_sets import make_set, pictures_below
from predict import ONNX, OPENVINO, OURS, TORCH, Tool, our_versions, prepare
from tables import IN_TURN, Row, Scale, load_now, parser_of, publish, render, rows_of
from tables import page as page_of

NUM_PICTURES = 20
MOST_OVER_PARTS = 1.25
TOOLS = (
    Tool("PyTorch eager float32", "one_torch.py", "torchvision", TORCH),
    Tool("PyTorch bf16, channels-last", "one_torch.py", "torchvision", TORCH, flags=("--tuned",)),
    Tool("ONNX Runtime float32", "one_onnxruntime.py", "onnxruntime", ONNX, "onnx-float32", ("float32",)),
    Tool("ONNX Runtime int8", "one_onnxruntime.py", "onnxruntime", ONNX, "onnx-int8", ("int8",)),
    Tool("OpenVINO float32", "one_openvino.py", "openvino", OPENVINO, "openvino-float32", ("float32",)),
    Tool("OpenVINO bf16", "one_openvino.py", "openvino", OPENVINO, "openvino-float32", ("bf16",)),
    Tool("OpenVINO int8", "one_openvino.py", "openvino", OPENVINO, "openvino-int8", ("int8",)),
)


def main() -> None:
    parser = parser_of(__doc__, "one-picture")
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=200, help="answers of each process")
    parser.add_argument("--size", default="500x375")
    given = parser.parse_args()
    run, load = given.run.absolute(), load_now()
    models = model_folder(run)
    problems = prepare(models, TOOLS, calibration_pictures(run))
    variables = peer_variables(given.threads)
    width, height = map(int, given.size.split("x"))
    with tempfile.TemporaryDirectory() as scratch:
        pictures = make_set(Path(scratch, "set"), pictures_below(pictures_of(run)), NUM_PICTURES, (width, height))
        ours = PEERS.parent / "ours" / "our_one_picture.py"
        command = [sys.executable, str(ours), str(run), str(pictures), str(given.count)]
        contestants = [Contestant(OURS, command, our_versions(), variables=our_variables(variables))]
        for tool in TOOLS:
            arguments = [models, pictures, str(given.threads), str(given.count), *tool.flags]
            if problem := problems.get(tool.form):
                contestants.append(Contestant(tool.name, problem=problem))
            else:
                contestants.append(peer(tool.name, tool.script, arguments, within=tool.within, packages=tool.packages))
        hold(contestants, times=given.times, variables=variables)
    sections = [
        f"One JPEG of {given.size} at a time, {given.threads} threads, medians of {given.count} answers in each process. {IN_TURN}",
        render([*rows_of(contestants, "median_ms"), *parts_of(contestants[0])], Scale("ms", 2), ours=OURS),
        over_parts(contestants[0]),
    ]
    text = page_of("One picture in a warm process", sections, arguments=sys.argv, load=load)
    publish("one-picture", text, write=not given.no_page)


def parts_of(ours: Contestant) -> list[Row]:
    return [
        Row(f"{OURS}: {name} alone", [run.told[figure] for run in ours.runs], remark="a part of ours, no tool")
        for name, figure in (("engine", "engine_ms"), ("decoding", "decoding_ms"))
    ]


def over_parts(ours: Contestant) -> str:
    """What everything around the engine and the decoding costs."""
    if not ours.runs:
        return ""
    ratio = statistics.median(
        run.told["median_ms"] / (run.told["engine_ms"] + run.told["decoding_ms"]) for run in ours.runs
    )
    return f"\nOurs takes {ratio:.2f} times its engine and its decoding together (bar: {MOST_OVER_PARTS})."


if __name__ == "__main__":
    main()
