"""One picture at a time in a warm process, by Foldertune; and its engine and its decoding alone, in the same process.

usage: python our_one_picture.py RUN PICTURES COUNT
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "peers"))
from warm_clock import tell_latency, times_ms


def main() -> None:
    run, pictures, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    import foldertune

    answer: Any = foldertune.load(run).predict
    jpegs = [path.read_bytes() for path in sorted(pictures.glob("*.jpg"))]
    tell_latency(answer, jpegs, count, **parts(run, jpegs, count))


def parts(run: Path, jpegs: list[bytes], count: int) -> dict[str, float]:
    """Medians in milliseconds: the engine that answers on a prepared picture, and a JPEG made into one."""
    from foldertune.evaluation.predict import opening
    from foldertune.images import decode
    from foldertune.preprocess import decode_px, prepare
    from foldertune.records import finish

    model = finish(opening(run))

    def prepared(number: int) -> object:
        picture = decode(jpegs[number % len(jpegs)], at_least_px=decode_px(model.preprocess))
        return prepare(picture, model.preprocess)

    squares = [prepared(number)[None] for number in range(len(jpegs))]  # type: ignore[index]
    return {
        "engine_ms": statistics.median(
            times_ms(lambda number: model.engine.run(squares[number % len(squares)]), count)
        ),
        "decoding_ms": statistics.median(times_ms(prepared, count)),
    }


if __name__ == "__main__":
    main()
