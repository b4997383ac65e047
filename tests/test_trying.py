"""Remedies tried from where a run began: which, on what, and what is said of what they earned."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import foldertune

import foldertune as product
from foldertune import cli
from foldertune.diagnosis.case import Cause, Remedy
from foldertune.errors import DataError, SettingsError
from foldertune.records import Finding, Interval, finish, plain
from foldertune.run import RunFolder, read_json, write_json
from foldertune.trying import Trial, Tried, choose_remedies, try_remedies


def cause(kind: str, severity: str, *changes: dict[str, Any]) -> Cause:
    remedies = tuple(Remedy(f"because of {kind}", each) for each in changes)
    return Cause(Finding(kind, "A sentence.", severity, 0.9, (), "a command"), remedies)  # type: ignore[arg-type]  # one of them


def test_choose_remedies_takes_the_first_of_every_alarm_before_any_second() -> None:
    found = [
        cause("rate_too_high", "serious", {"learning_rate": 1e-4}, {"learning_rate": 2e-5}),
        cause("over_fitting", "warning", {"augmentation": "standard"}, {"epochs": 3}),
        cause("under_fitting", "note", {"epochs": 30}),
    ]
    chosen, left_out = choose_remedies(found)
    assert [(kind, remedy.changes) for kind, remedy in chosen] == [
        ("rate_too_high", {"learning_rate": 1e-4}),
        ("over_fitting", {"augmentation": "standard"}),
        ("rate_too_high", {"learning_rate": 2e-5}),
    ]
    assert left_out == ["over_fitting: because of over_fitting (no time for more than 3)"]


def test_choose_remedies_leaves_out_what_no_setting_mends_or_another_network_would() -> None:
    found = [
        cause("validation_leaked", "serious", {}),
        cause("over_fitting", "warning", {"model": "resnet18", "weights": None}),
    ]
    chosen, left_out = choose_remedies(found)
    assert not chosen
    assert "no setting" in left_out[0]
    assert "another network" in left_out[1]


@pytest.mark.parametrize(
    ("gained", "saved", "said"),
    [
        ((0.1, 0.02, 0.18), (0.1, -0.1, 0.3), "better: +10.0 points (+2.0 to +18.0)"),
        ((-0.1, -0.2, -0.01), (-0.1, -0.3, 0.1), "worse: -10.0 points"),
        ((0.01, -0.05, 0.07), (0.0, -0.1, 0.1), "no difference shown: +1.0 points"),
        ((0.1, 0.02, 0.18), (-0.2, -0.3, -0.1), "no difference shown"),  # better by one measure, worse by the other
    ],
)
def test_trial_says_better_only_beyond_chance(gained: Any, saved: Any, said: str) -> None:
    trial = Trial("kind", {}, "why", 2, 3.0, 0.9, 0.3, Interval(*gained), Interval(*saved))
    assert trial.sentence.startswith(said)


@pytest.fixture(scope="module")
def cache_of(small_run: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLDERTUNE_CACHE", str(small_run.parent / "cache"))  # where the run itself kept its features
        yield os.environ["FOLDERTUNE_CACHE"]


def files_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != ".lock"}


@pytest.fixture(scope="module")
def tried(small_run: Path, cache_of: str) -> Tried:
    """What the remedies of the small run earned."""
    before = files_of(small_run)
    found = finish(try_remedies(RunFolder(small_run), max_minutes=10))
    assert files_of(small_run) == before  # the run stays as it was
    return found


def test_try_remedies_holds_each_against_the_own_settings_on_validation_alone(tried: Tried) -> None:
    own, *others = tried.trials
    assert tried.num_val == 6
    assert (own.kind, own.changes, own.gained) == ("", {}, None)
    assert 1 <= len(others) <= 3
    assert {each.kind for each in others} == {"too_few_steps"}
    assert others[0].epochs > own.epochs == 1
    for each in others:
        assert each.gained is not None
        assert each.loss_saved is not None
        assert each.gained.low <= each.gained.value <= each.gained.high
        assert each.gained.value == pytest.approx((each.accuracy or 0) - (own.accuracy or 0))
        assert each.loss_saved.value == pytest.approx((own.log_loss or 0) - (each.log_loss or 0))


def test_try_remedies_of_the_own_settings_gives_what_the_run_got(small_run: Path, tried: Tried) -> None:
    """Same start, same seed, same pictures: the same accuracy on validation."""
    (record,) = product.load(small_run).history
    assert tried.trials[0].accuracy == pytest.approx(record.val_accuracy)


def test_diagnose_try_prints_what_each_remedy_earned(
    small_run: Path, tried: Tried, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def again(run: RunFolder, *, max_minutes: float) -> Any:
        assert max_minutes == 7
        yield from ()
        return tried

    monkeypatch.setattr("foldertune.trying.try_remedies", again)
    words = ["diagnose", str(small_run), "--try", "--max-minutes", "7"]
    assert cli.run([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["findings"]
    assert told["tried"] == plain(tried)
    assert cli.run(words) == 0
    said = capsys.readouterr().out
    assert "Tried from where the run began, on 6 validation pictures:" in said
    assert tried.trials[1].sentence in said


def test_try_remedies_refuses_what_makes_no_sense(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(small_run)
    with pytest.raises(SettingsError, match=r"Max minutes is 0\. Accepted: above 0"):
        finish(try_remedies(run, max_minutes=0))
    said = foldertune("diagnose", str(small_run), "--max-minutes", "1")
    assert said.code == 2
    assert "it goes with --try" in said.err
    monkeypatch.setattr("foldertune.trying.diagnose_run", lambda run: ())
    with pytest.raises(SettingsError, match=r"There is no remedy to try for .*`foldertune diagnose "):
        finish(try_remedies(run))


def test_try_remedies_without_the_folder_says_so(small_run: Path, tmp_path: Path, cache_of: str) -> None:
    import shutil

    copied = RunFolder(Path(shutil.copytree(small_run, tmp_path / "run")))
    facts = read_json(copied.run_json)
    facts["dataset"]["folder"] = str(tmp_path / "gone")
    write_json(copied.run_json, facts)
    with pytest.raises(
        DataError, match=r"The folder .*gone that .* was trained on is not there any more\. Put it back"
    ):
        finish(try_remedies(copied))


def test_trials_are_plain_numbers() -> None:
    trial = Trial("", {}, "own", 1, 1.0, float(np.float64(0.5)), 0.3)
    assert dataclasses.asdict(trial)["accuracy"] == 0.5
    assert trial.sentence == "the run's own settings"
    assert dataclasses.replace(trial, accuracy=None).sentence == "diverged"


def test_choose_remedies_leaves_out_what_only_makes_it_faster() -> None:
    chosen, left_out = choose_remedies([cause("loader_starving", "warning", {"workers": 8}, {"epochs": 3})])
    assert [remedy.changes for _, remedy in chosen] == [{"epochs": 3}]
    assert left_out == ["loader_starving: because of loader_starving (makes it faster, not better)"]
