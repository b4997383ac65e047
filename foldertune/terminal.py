"""What the command line shows while it works: progress and messages, on stderr.

On a terminal a bar with pictures per second and time left; elsewhere plain lines, so that a log stays readable.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from foldertune.records import AccuracyRange, Event, Interval, Prediction, Progress

T = TypeVar("T")
_STAGES = {
    "look": "Looking at the pictures",
    "copies": "Looking for copies",
    "decode": "Preparing the pictures",
    "features": "Features of the frozen network",
    "labels": "Judging the labels",
    "activations": "Activations of the frozen layers",
    "train": "Fine-tuning",
    "evaluate": "Evaluating",
    "engines": "Trying engines",
    "changes": "Trying changes of augmentation",
    "fits": "Trying crop, squash and letterbox",
    "explain": "Explaining",
}
SPLIT_SOURCES = {
    "folders": "as the folders say",
    "csv": "as labels.csv says",
    "made": "split here",
    "made from train": "val or test taken from train",
}
_NUM_LISTED = 5  # pictures that are left out
_PLAIN_LINE_S = 15.0  # without a terminal, at most one line of progress in so many seconds


def say(text: str) -> None:
    """One line on stderr; control characters of file names are shown, not obeyed."""
    print(printable(text), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """The text with control characters and broken bytes as escapes, so that a file's name cannot steer the terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def show(work: Generator[Event | Progress, None, T]) -> T:
    """Run some work to its end, showing what it tells; returns its result."""
    screen = _Bar() if sys.stderr.isatty() else _Lines()
    began, notes = time.monotonic(), set[str]()
    with screen:
        while True:
            try:
                told = next(work)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if isinstance(told, Progress):
                screen.progress(told)
                continue
            if told.kind == "note" and told.facts["text"] in notes:
                continue  # such as that the cache takes nothing, which each pack finds out anew
            notes.add(str(told.facts.get("text")))
            for line in event_lines(told):
                screen.line(f"{_clock(time.monotonic() - began)}  {printable(line)}")


def event_lines(told: Event) -> list[str]:
    """What a person is told of an event, in no, one or more lines."""
    lines = _EVENTS.get(told.kind)
    return lines(told.facts) if lines else []


def counted(answers: Iterable[Prediction]) -> Iterator[Prediction]:
    """The answers as they come, with a line on stderr now and then."""
    began = last = time.monotonic()
    for number, answer in enumerate(answers, start=1):
        if time.monotonic() - last >= _PLAIN_LINE_S:
            last = time.monotonic()
            say(f"{_clock(last - began)}  {number:,} pictures, {number / (last - began):,.0f} a second")
        yield answer


# ------------------------------------------------------------------------------------------------------------------- screens


class _Lines:
    """Plain lines for logs and pipes."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def progress(self, told: Progress) -> None:
        if time.monotonic() - self._last >= _PLAIN_LINE_S:
            self._last = time.monotonic()
            self.line(f"       {_STAGES.get(told.stage, told.stage)}: {told.done:,} of {told.total:,}")


class _Bar:
    """A bar below the lines, with rate and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("       {task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True, highlight=False),
            transient=True,
            speed_estimate_period=20,
        )
        self._task: Any = None
        self._stage = ""

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def line(self, text: str) -> None:
        self._bar.console.print(text, markup=False, soft_wrap=True)

    def progress(self, told: Progress) -> None:
        if told.stage != self._stage:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._stage = told.stage
            self._task = self._bar.add_task(_STAGES.get(told.stage, told.stage), total=told.total, rate="")
        speed = next(task.speed for task in self._bar.tasks if task.id == self._task)
        rate = f"{speed:,.0f} pictures/s" if speed else ""
        self._bar.update(self._task, completed=told.done, total=told.total, rate=rate)
        if told.done >= told.total:
            self._bar.remove_task(self._task)
            self._task, self._stage = None, ""


# -------------------------------------------------------------------------------------------------------------------- events


def _looked(facts: Mapping[str, Any]) -> list[str]:
    counts = facts["num_pictures"]
    lines = [
        f"Data: {len(facts['classes'])} classes, {sum(counts.values()):,} pictures: {counts['train']:,} to train, "
        f"{counts['val']:,} to validate, {counts['test']:,} to test ({SPLIT_SOURCES.get(facts['split_source'], facts['split_source'])})"
    ]
    lines += [f"Skipped: {count:,} {reason}" for reason, count in facts["skipped"].items()]
    if number := facts["num_unreadable"]:
        lines.append(
            f"Left out: {number:,} picture{'s' * (number != 1)}, with the reason (dataset.csv of a run lists all)"
        )
        lines += [f"  {path}: {problem}" for path, problem in list(facts["unreadable"].items())[:_NUM_LISTED]]
        if number > _NUM_LISTED:
            lines.append(f"  and {number - _NUM_LISTED:,} more")
    return lines + [f"Warning: {text}" for text in facts["warnings"]]


def _found(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    for finding in facts["findings"]:
        if finding["severity"] != "note":
            lines += [f"{finding['severity'].capitalize()}: {finding['sentence']}", f"  Mend: {finding['remedy']}"]
    return lines


def _weights(facts: Mapping[str, Any]) -> list[str]:
    licence = f" (licence: {facts['licence']})" if facts["licence"] else ""
    return [f"Weights: {facts['source']}{licence}", *(f"Note: {text}" for text in facts["assumed"])]


def _planned(facts: Mapping[str, Any]) -> list[str]:
    values, forecast = facts["settings"], facts["forecast"]
    layers = {"all": "all layers", "upper": "the upper layers", "head": "the head alone"}[values["tune"]]
    course = (
        ""
        if values["tune"] == "head"
        else f", {values['epochs']} epoch{'s' * (values['epochs'] != 1)}, batch {values['batch_size']}, rate {values['learning_rate']:g}"
    )
    cost = f"; about {duration(forecast['minutes'])} in all" if forecast else ""
    return [
        f"Plan: {values['model']} at {values['image_size']} px on {values['device']}, {layers}{course}{cost} (plan.json has every reason)",
        *(f"Warning: {text}" for text in facts["warnings"]),
    ]


def _baseline(facts: Mapping[str, Any]) -> list[str]:
    val = "" if facts["val_accuracy"] is None else f"{facts['val_accuracy']:.1%} of the validation pictures, "
    return [f"Baseline: {val}{facts['out_of_fold_accuracy']:.1%} out of fold; usable from now on"]


def _expected(facts: Mapping[str, Any]) -> list[str]:
    if facts["accuracy"]:
        return [f"Forecast: {expected(AccuracyRange(**facts['accuracy']))}"]
    return [f"No forecast of the accuracy: {facts['no_accuracy']}"]


def _epoch(facts: Mapping[str, Any]) -> list[str]:
    val = "" if facts["val_accuracy"] is None else f"  val {facts['val_accuracy']:.1%}"
    kept = "  chosen so far" if facts["best"] else ""
    return [
        f"Epoch {facts['epoch']}/{facts['epochs']}  loss {facts['train_loss']:.3f}  train {facts['train_accuracy']:.1%}{val}"
        f"  {facts['pictures_per_s']:.1f} pictures/s{kept}"
    ]


def _evaluated(facts: Mapping[str, Any]) -> list[str]:
    return [
        f"Test: {model} {between(Interval(**found))}{' (kept)' if model == facts['kept'] else ''}"
        for model, found in facts["models"].items()
    ]


def _diagnosed(facts: Mapping[str, Any]) -> list[str]:
    grave = [found for found in facts["findings"] if found["severity"] != "note"]
    lines = []
    for found in grave[:3]:
        lines += [f"Diagnosis: {found['sentence']}", f"  What mends it: {found['remedy']}"]
    return lines


_EVENTS: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "looked": _looked,
    "found": _found,
    "weights": _weights,
    "planned": _planned,
    "baseline": _baseline,
    "expected": _expected,
    "epoch": _epoch,
    "kept": lambda facts: [str(facts["sentence"])],
    "evaluated": _evaluated,
    "diagnosed": _diagnosed,
    "engine": lambda facts: [
        f"Engine: {facts['engine']} in {facts['precision']} on {facts['device']} ({facts['reason']})"
    ],
    "patch": lambda facts: [
        f"Patch: {facts['path']} has {facts['num_lines']:,} lines that are ready, and {facts['num_proposed']:,} that wait for a person "
        "to take away their ?"
    ],
    "comparing": lambda facts: [f"Training {facts['number']} of {facts['total']}: {facts['model']}, in {facts['run']}"],
    "ended_early": lambda facts: [str(facts["text"])],
    "explained": lambda facts: [f"Page: {facts['page']}"],
    "note": lambda facts: [str(facts["text"])],
    "warning": lambda facts: [f"Warning: {facts['text']}"],
    "blended": lambda facts: (
        [f"Weights: {facts['share']:.0%} of the way from the pretrained ones does best on validation"]
        if facts["share"] < 1
        else []
    ),
    "resumed": lambda facts: [f"Resumed at step {facts['step']:,}, epoch {facts['epoch']}"],
    "finished": lambda facts: [f"Finished in {duration(facts['minutes'])}"],
}


def between(interval: Interval) -> str:
    """A share with its interval, in words."""
    return f"{interval.value:.1%} (95% interval {interval.low:.1%} to {interval.high:.1%})"


def expected(found: AccuracyRange) -> str:
    """A forecast of accuracy, in words, with what it rests on."""
    head = f"{found.head_accuracy:.1%} out of fold by the head on frozen features of {found.num_judged:,} training pictures"
    return (
        f"{found.value:.1%} of the {found.num_test:,} test pictures right, between {found.low:.1%} and {found.high:.1%} "
        f"in {found.level:.0%} of runs ({head}; {found.why})"
    )


def duration(minutes: float) -> str:
    """A time that a person can picture."""
    return f"{60 * minutes:.0f} seconds" if minutes < 1 else f"{minutes:.1f} minutes"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:2d}:{int(seconds) % 60:02d}"
