"""Predictions as a file: .csv for spreadsheets, .jsonl for programs. Written as they come, complete or absent."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from foldertune.data.table import FORMULA
from foldertune.errors import SettingsError
from foldertune.records import Prediction, plain
from foldertune.run import written_whole


def write(path: Path, answers: Iterable[Prediction], *, top_k: int) -> tuple[int, int]:
    """Write one record per answer; returns (answered, failed). The kind follows the ending; the file appears when it is whole.

    The file is UTF-8 whatever the names: bytes of a name that are not become escapes, in JSON lines those of JSON.
    """
    check_path(path)
    with (
        written_whole(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream,
    ):
        rows = _csv(stream, answers, top_k) if path.suffix.lower() == ".csv" else _jsonl(stream, answers)
        counts = [0, 0]
        for failed in rows:
            counts[failed] += 1
    return counts[0], counts[1]


def check_path(path: Path) -> None:
    """Raises SettingsError where no predictions can be written to."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise SettingsError(f"The output {path} ends in {path.suffix or 'nothing'}. Accepted: .csv or .jsonl.")
    if not path.absolute().parent.is_dir():
        raise SettingsError(f"The folder of the output {path} does not exist. Make it, or give another --output.")


def _csv(stream: TextIO, answers: Iterable[Prediction], top_k: int) -> Iterator[bool]:
    writer = csv.writer(stream)  # its line ending of two characters is what makes it quote each of them inside of names
    further = [f"{name}_{place}" for place in range(2, top_k + 1) for name in ("class", "probability")]
    writer.writerow(["path", "class", "probability", *further, "known", "likeliest", "reason", "error"])
    for answer in answers:
        pairs: list[Any] = [
            value for label, probability in answer.top for value in (_plain(label), f"{probability:.6f}")
        ]
        pairs += [""] * (2 * top_k - len(pairs))
        pairs[0] = _plain(answer.label or "")
        likeliest = _plain(answer.top[0][0]) if answer.top else ""
        known = "" if answer.error is not None else "yes" if answer.known else "no"
        writer.writerow(
            [_plain(answer.path), *pairs, known, likeliest, _plain(answer.reason), _plain(answer.error or "")]
        )
        yield answer.error is not None


def _jsonl(stream: TextIO, answers: Iterable[Prediction]) -> Iterator[bool]:
    for answer in answers:
        stream.write(json.dumps(document(answer), ensure_ascii=False) + "\n")
        yield answer.error is not None


def document(answer: Prediction) -> dict[str, Any]:
    """An answer as JSON: path, class, probability, known; top (where more than one was asked for, or the answer is refused).

    reason where it is refused; error where there is one.
    """
    facts: dict[str, Any] = {"path": answer.path, "class": answer.label, "probability": answer.probability}
    if answer.error is None:
        facts["known"] = answer.known
    if len(answer.top) > 1 or not answer.known:
        facts["top"] = [{"class": label, "probability": probability} for label, probability in answer.top]
    if answer.reason:
        facts["reason"] = answer.reason
    if answer.error is not None:
        facts["error"] = answer.error
    return {key: plain(value) for key, value in facts.items()}


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
