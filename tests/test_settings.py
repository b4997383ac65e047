"""What a user may set: each range with its sentence, each kind of file, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldertune.errors import SettingsError
from foldertune.records import Decision
from foldertune.settings import BEYOND_GUIDE, RANGES, TrainSettings, check_settings, read_settings

HINTS = get_type_hints(TrainSettings)
LIFTED = "pass --beyond-guide to go outside it."


def refusal(**given_settings: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        check_settings(given_settings)
    assert caught.value.exit_code == 2
    return str(caught.value)


def file_refusal(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError) as caught:
        read_settings(path)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------------------- ranges


def test_ranges_of_the_guide_are_its_own() -> None:
    guide = {name: (limits.low, limits.high) for name, limits in RANGES.items() if limits.guide}
    assert guide == {"batch_size": (2, 64), "epochs": (1, 30), "learning_rate": (1e-5, 5e-4)}
    assert guide.keys() == BEYOND_GUIDE.keys()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("batch_size", 1, f"Batch size is 1. The guide's range is 2 to 64; {LIFTED}"),
        ("batch_size", 65, f"Batch size is 65. The guide's range is 2 to 64; {LIFTED}"),
        ("epochs", 0, f"Epochs is 0. The guide's range is 1 to 30; {LIFTED}"),
        ("epochs", 10**400, f"Epochs is {10**400}. The guide's range is 1 to 30; {LIFTED}"),
        ("learning_rate", 1e-3, f"Learning rate is 0.001. The guide's range is 1e-05 to 0.0005; {LIFTED}"),
        ("learning_rate", 9e-6, f"Learning rate is 9e-06. The guide's range is 1e-05 to 0.0005; {LIFTED}"),
        ("eval_steps", 0, "Eval steps is 0. Accepted: 1 and more."),
        ("image_size", 31, "Image size is 31. Accepted: 32 to 512."),
        ("image_size", 513, "Image size is 513. Accepted: 32 to 512."),
        ("seed", -1, "Seed is -1. Accepted: 0 to 4294967295."),
        ("seed", 2**32, "Seed is 4294967296. Accepted: 0 to 4294967295."),
        ("max_minutes", 0, "Max minutes is 0. Accepted: 0.1 and more."),
        ("label_smoothing", 0.51, "Label smoothing is 0.51. Accepted: 0 to 0.5."),
        ("accumulate", 0, "Accumulate is 0. Accepted: 1 to 1024."),
        ("early_stop", -1, "Early stop is -1. Accepted: 0 and more."),
        ("workers", 257, "Workers is 257. Accepted: 0 to 256."),
        ("save_minutes", -0.5, "Save minutes is -0.5. Accepted: 0 and more."),
    ],
)
def test_check_settings_out_of_range_says_the_range_and_what_lifts_it(name: str, value: Any, sentence: str) -> None:
    assert refusal(**{name: value}) == sentence


@pytest.mark.parametrize("name", RANGES)
def test_check_settings_ends_of_every_range_are_accepted(name: str) -> None:
    limits = RANGES[name]
    kind = HINTS[name]
    for value in (limits.low, limits.high):
        if math.isfinite(value):
            assert check_settings({name: kind(value)}) == {name: kind(value)}


@pytest.mark.parametrize("name", BEYOND_GUIDE)
def test_check_settings_beyond_the_guide_is_lifted_and_still_bounded(name: str) -> None:
    limits, kind = BEYOND_GUIDE[name], HINTS[name]
    for value in (limits.low, limits.high):
        assert check_settings({name: kind(value), "beyond_guide": True})[name] == value  # type: ignore[literal-required]
    text = refusal(**{name: kind(limits.high * 2), "beyond_guide": True})
    assert "Accepted even beyond the guide: " in text
    assert "Accepted even beyond" in refusal(**{name: kind(0), "beyond_guide": True})


def test_check_settings_beyond_guide_false_lifts_nothing() -> None:
    assert "The guide's range" in refusal(batch_size=128, beyond_guide=False)


@given(st.integers(-10, 200), st.booleans())
def test_check_settings_batch_size_is_accepted_exactly_inside(batch_size: int, beyond: bool) -> None:
    try:
        check_settings({"batch_size": batch_size, "beyond_guide": beyond})
        accepted = True
    except SettingsError:
        accepted = False
    assert accepted == (batch_size >= 1 if beyond else 2 <= batch_size <= 64)


# ----------------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("epochs", 2.0, "a whole number"),
        ("epochs", "3", "a whole number"),
        ("epochs", True, "a whole number"),
        ("learning_rate", "5e-5", "a number"),
        ("learning_rate", True, "a number"),
        ("learning_rate", math.nan, "a finite number"),
        ("max_minutes", math.inf, "a finite number"),
        ("max_minutes", 10**400, "a finite number"),
        ("ema", 1, "true or false"),
        ("ema", "yes", "true or false"),
        ("model", 50, "text"),
        ("weights", ["imagenet"], "text"),
        ("preset", "fast", "auto, documented, guide-defaults, products, xray, plants"),
        ("augmentation", "strong", "none, light, standard, heavy"),
        ("fit", "stretch", "crop, squash, letterbox"),
        ("precision", "float16", "float32, bf16, fp16"),
        ("device", "gpu", "auto, cpu, cuda, mps"),
        ("tune", 3, "auto, all, upper, head"),
        ("optimizer", ["sgd"], "adamw, sgd"),
        ("imbalance", {}, "none, weights, sampling"),
    ],
)
def test_check_settings_of_another_kind_says_which_is_accepted(name: str, value: Any, accepted: str) -> None:
    assert refusal(**{name: value}).endswith(f" Accepted: {accepted}.")


def test_check_settings_unknown_name_lists_all() -> None:
    assert refusal(batchsize=8) == f"There is no setting 'batchsize'. Accepted: {', '.join(HINTS)}."


def test_check_settings_none_counts_as_absent() -> None:
    assert check_settings({"epochs": None, "model": None}) == {}


def test_check_settings_whole_number_for_a_number_becomes_one() -> None:
    checked = check_settings({"max_minutes": 5})
    assert isinstance(checked["max_minutes"], float)


@pytest.mark.parametrize("name", [name for name in HINTS if get_args(HINTS[name])])
def test_check_settings_every_choice_is_accepted(name: str) -> None:
    for choice in get_args(HINTS[name]):
        assert check_settings({name: choice}) == {name: choice}


# ----------------------------------------------------------------------------------------------------------------- files

GIVEN: dict[str, Any] = {"model": "resnet18", "epochs": 5, "learning_rate": 1e-4, "ema": True, "fit": "squash"}


@pytest.mark.parametrize("beginning", ["", "\ufeff"])
def test_read_settings_json_and_toml_give_the_same(tmp_path: Path, beginning: str) -> None:
    (tmp_path / "a.json").write_text(beginning + json.dumps(GIVEN), "utf-8")
    lines = [f"{name} = {json.dumps(value)}" for name, value in GIVEN.items()]
    (tmp_path / "a.TOML").write_text(beginning + "\n".join(lines), "utf-8")
    assert read_settings(tmp_path / "a.json") == read_settings(tmp_path / "a.TOML") == GIVEN


def decisions(**values: Any) -> list[dict[str, Any]]:
    return [asdict(Decision(name, value, "because", "rule")) for name, value in values.items()]


@pytest.mark.parametrize("wrapped", [False, True])
def test_read_settings_of_an_earlier_plan_takes_its_values_beyond_the_guide(tmp_path: Path, wrapped: bool) -> None:
    rows = decisions(batch_size=128, epochs=40, learning_rate=1e-3, max_minutes=None, warmup_share=0.1)
    document = {"settings": rows, "forecast": None, "warnings": []} if wrapped else rows
    (tmp_path / "plan.json").write_text(json.dumps(document), "utf-8")
    expected = {"batch_size": 128, "epochs": 40, "learning_rate": 1e-3, "beyond_guide": True}
    assert read_settings(tmp_path / "plan.json") == expected


def test_read_settings_of_an_impossible_plan_is_refused(tmp_path: Path) -> None:
    text = file_refusal(tmp_path / "plan.json", json.dumps(decisions(batch_size=0)))
    assert text == "Batch size is 0. Accepted even beyond the guide: 1 to 65536."


@pytest.mark.parametrize("rows", [[1], ["abc"], [{"setting": "epochs"}], [{"value": 3}], [{"setting": [], "value": 1}]])
def test_read_settings_of_a_list_that_is_no_plan_is_refused(tmp_path: Path, rows: list[Any]) -> None:
    text = file_refusal(tmp_path / "plan.json", json.dumps(rows))
    assert text.endswith("is not a plan: each row needs 'setting' and 'value'.")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", "{", "is not valid .json"),
        ("a.json", "", "is not valid .json"),
        ("a.json", "[" * 100_000, "is not valid .json"),
        ("a.toml", "epochs =", "is not valid .toml"),
        ("a.toml", '{"epochs": 3}', "is not valid .toml"),
        ("settings", "epochs: 3", "is not valid JSON"),
        ("a.json", '"text"', "holds neither a table of settings nor a plan."),
        ("a.json", "3", "holds neither a table of settings nor a plan."),
        ("a.json", b"\xff\xfe{\0", "cannot be read"),
        ("a.json", '{"epochs": "3"}', "Epochs is '3'. Accepted: a whole number."),
        ("a.json", '{"learning_rate": NaN}', "Accepted: a finite number."),
        ("a.json", '{"learning_rate": Infinity}', "Accepted: a finite number."),
        ("a.json", '{"batch_size": 128}', "The guide's range is 2 to 64"),
        ("a.json", '{"speed": 1}', "There is no setting 'speed'."),
        ("a.toml", "epochs = 2026-11-23", "Accepted: a whole number."),
    ],
)
def test_read_settings_at_fault_is_refused(tmp_path: Path, name: str, content: str | bytes, expected: str) -> None:
    text = file_refusal(tmp_path / name, content)
    assert expected in text


def test_read_settings_absent_or_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(SettingsError, match="cannot be read"):
            read_settings(path)
