"""What does a lower precision change on test pictures: how often the answer stays, how much accuracy is lost, with intervals?

The test pictures chose nothing: int8 is calibrated on training pictures, and `foldertune speed` judges it on validation pictures.

usage: python benchmarks/int8.py RUN [RUN ...] [--no-page]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tables import load_now, parser_of, publish
from tables import page as page_of

PRECISIONS = ("bf16", "int8")


def main() -> None:
    parser = parser_of(__doc__, "int8", rounds=False)
    parser.add_argument("runs", nargs="+", type=Path)
    given = parser.parse_args()
    load = load_now()
    head = (
        "| run | test pictures | float32 | precision | accuracy | answers as in float32 | points lost (95 % interval) |"
    )
    rows = [row for run in given.runs for row in rows_of(run)]
    text = "\n".join([head, "|---|---|---|---|---|---|---|", *rows])
    told = "OpenVINO; float32 is float32. A negative loss is a gain. The interval is that of a paired difference (Agresti and Min 2005)."
    publish(
        "int8",
        page_of("Lower precision, test pictures", [told, text], arguments=sys.argv, load=load),
        write=not given.no_page,
    )


def rows_of(run: Path) -> Iterator[str]:
    """A row of the table for each precision that this machine has."""
    from foldertune.data.table import read_dataset
    from foldertune.errors import MissingError
    from foldertune.evaluation.metrics import paired_share_difference
    from foldertune.run import RunFolder

    folder = RunFolder(run)
    dataset = read_dataset(folder.dataset_csv, folder.open()["dataset"])
    pictures = dataset.of("test")
    paths, truth = [dataset.folder / picture.path for picture in pictures], np.array([p.label for p in pictures])
    exact = answers(run, paths, "float32")
    for precision in PRECISIONS:
        try:
            found = answers(run, paths, precision)
        except MissingError as error:
            yield f"| {run.name} | {len(paths)} | - | {precision} | {error} | - | - |"
            continue
        right, still = exact == truth, found == truth
        lost = paired_share_difference(int((right & ~still).sum()), int((still & ~right).sum()), len(paths))
        yield (
            f"| {run.name} | {len(paths)} | {right.mean():.3f} | {precision} | {still.mean():.3f} | {(found == exact).mean():.1%} | "
            f"{100 * lost.value:.1f} ({100 * lost.low:.1f} to {100 * lost.high:.1f}) |"
        )


def answers(run: Path, paths: Sequence[Path], precision: str) -> np.ndarray:
    """What OpenVINO says of each picture in one precision."""
    from foldertune.evaluation.predict import opening
    from foldertune.records import finish

    predictor = finish(opening(run, engine="openvino", precision=precision))
    return np.array([answer.label for answer in predictor.predict(paths)])


if __name__ == "__main__":
    main()
