"""What a person is told of the accuracy to expect: by `plan` on stdout, by `train` while it works."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foldertune.records import AccuracyRange, Decision, Event, Forecast, Plan, plain
from foldertune.results import print_plan
from foldertune.terminal import event_lines

EXPECTED = AccuracyRange(0.884, 0.82, 0.951, 0.9, 0.861, 1_275, 372, "pictures like those gain little")
TOLD = (
    "88.4% of the 372 test pictures right, between 82.0% and 95.1% in 90% of runs "
    "(86.1% out of fold by the head on frozen features of 1,275 training pictures; pictures like those gain little)"
)
PLAN = Plan((Decision("seed", 1, "given", "given"),), Forecast(2.0, 1_800.0, 300.0), ("Few pictures.",))


def printed(plan: Plan, capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_plan(plan)
    return capsys.readouterr().out.splitlines()


def test_print_plan_tells_the_range_below_the_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    assert PLAN.forecast is not None
    cost = "Forecast: 2.0 minutes, 1,800 MiB of memory, 300 MiB of disk"
    with_range = replace(PLAN, forecast=replace(PLAN.forecast, accuracy=EXPECTED))
    assert printed(with_range, capsys)[2:] == [cost, f"Accuracy: {TOLD}", "Warning: Few pictures."]
    without = replace(PLAN, forecast=replace(PLAN.forecast, no_accuracy="there are no test pictures to measure it on"))
    assert printed(without, capsys)[3] == "Accuracy: not forecast, there are no test pictures to measure it on"
    assert printed(PLAN, capsys)[2:] == [cost, "Warning: Few pictures."]  # the plan of an older run


def test_event_lines_tell_the_range_after_the_baseline() -> None:
    assert event_lines(Event("expected", 0.0, {"accuracy": plain(EXPECTED), "no_accuracy": ""})) == [
        f"Forecast: {TOLD}"
    ]
    nothing = {"accuracy": None, "no_accuracy": "there are no test pictures to measure it on"}
    assert event_lines(Event("expected", 0.0, nothing)) == [
        "No forecast of the accuracy: there are no test pictures to measure it on"
    ]


@pytest.mark.parametrize(("number", "shown", "more"), [(1, 1, None), (5, 5, None), (7, 5, "  and 2 more")])
def test_event_lines_of_pictures_that_are_left_out_say_how_many_more(number: int, shown: int, more: str | None) -> None:
    unreadable = {f"a/{place}.jpg": "damaged" for place in range(number)}
    facts = {
        "classes": {"a": 9, "b": 9}, "num_pictures": {"train": 12, "val": 3, "test": 3}, "split_source": "made", "skipped": {},
        "num_unreadable": number, "unreadable": unreadable, "warnings": [],
    }  # fmt: skip
    lines = event_lines(Event("looked", 0.0, facts))[1:]
    assert lines[0].startswith(f"Left out: {number} picture{'s' * (number > 1)}, with the reason")
    assert lines[1 : 1 + shown] == [f"  a/{place}.jpg: damaged" for place in range(shown)]
    assert lines[1 + shown :] == ([more] if more else [])
