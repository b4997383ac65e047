"""predictions.csv: one line per picture that was measured, for people, spreadsheets and programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from foldertune.data.table import guarded
from foldertune.errors import DataError, SettingsError
from foldertune.evaluation.metrics import Floats
from foldertune.records import Picture
from foldertune.run import write_bytes, write_text

COLUMNS = ("row", "path", "label", "split", "answer", "right", "probability", "label_probability", "known")


def answer_rows(
    pictures: Sequence[Picture],
    probabilities: Floats,
    *,
    classes: Sequence[str],
    known: Iterable[bool],
    split: str = "",
) -> list[list[object]]:
    """What the table says of some pictures.

    probabilities: (N, K).   known: whether the answer would be given under the promise of the model.   split: else the pictures' own.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    answers = probabilities.argmax(1)
    rows: list[list[object]] = []
    for place, (picture, given) in enumerate(zip(pictures, known, strict=True)):
        answer = classes[int(answers[place])]
        shares = probabilities[place, answers[place]], probabilities[place, numbers[picture.label]]
        rows.append([
            picture.row, picture.path, picture.label, split or picture.split, answer, _word(answer == picture.label),
            *(f"{share:.6f}" for share in shares), _word(given),
        ])  # fmt: skip
    return rows


def write_answer_table(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write the table, complete or not at all. Text that a spreadsheet would run as a formula gets a leading apostrophe."""
    stream = io.StringIO()
    writer = csv.writer(stream)  # its line ending of two characters is what makes it quote each of them inside of names
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(guarded(value) for value in row)
    write_text(path, stream.getvalue())


def copy_answer_table(source: Path, path: Path) -> None:
    """The table of a run at another place. Raises DataError where the run has none."""
    try:
        content = source.read_bytes()
    except OSError as error:
        raise DataError(
            f"{source} cannot be read ({error.strerror}): the run is of an earlier version, or not whole. Measure on a folder instead."
        ) from error
    write_bytes(path, content)


def check_table_path(path: Path) -> None:
    """Raises SettingsError where no table can be written to."""
    if path.suffix.lower() != ".csv":
        raise SettingsError(f"The output {path} ends in {path.suffix or 'nothing'}. Accepted: .csv.")
    if not path.absolute().parent.is_dir():
        raise SettingsError(f"The folder of the output {path} does not exist. Make it, or give another --output.")


def _word(yes: bool) -> str:
    return "yes" if yes else "no"
