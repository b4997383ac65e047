"""What is found wrong with a run: each rule as a table of facts and findings; a healthy run gives none."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import foldertune
from hypothesis import given
from hypothesis import strategies as st

import foldertune as product
from foldertune.api import start_mended
from foldertune.diagnosing import case_of, diagnose_run
from foldertune.diagnosis.case import Case, Copy, Figures, interval_of, train_command
from foldertune.diagnosis.contradictions import find_contradictions
from foldertune.diagnosis.findings import DATA_KINDS, KINDS, RUN_KINDS
from foldertune.diagnosis.learning import diagnose_case, looked_at
from foldertune.errors import DataError, MissingError, SettingsError
from foldertune.evaluation.metrics import wilson_interval
from foldertune.records import EpochRecord, Evidence
from foldertune.run import RunFolder

CLASSES = ("ant", "bee", "cat", "dog")
PLAN = {
    "preset": "auto", "model": "resnet50", "weights": "imagenet", "device": "cpu", "tune": "all", "batch_norm": "frozen",
    "batch_size": 16, "optimizer": "adamw", "augmentation": "light", "orientation": "upright", "learning_rate": 1e-4, "epochs": 4,
    "label_smoothing": 0.0, "imbalance": "none",
}  # fmt: skip


def epochs(
    losses: list[float], accuracies: list[float], vals: list[tuple[float, float]], **same: Any
) -> tuple[EpochRecord, ...]:
    """One record per epoch; steps, waiting and the first loss as of a healthy run, unless they are given."""
    facts = {
        "first_loss": losses[0],
        "highest_loss": losses[0] + 0.1,
        "clipped_share": 1.0,
        "waited_share": 0.02,
        **same,
    }
    per_epoch = facts.pop("steps", 60)
    return tuple(
        EpochRecord(
            epoch=place + 1, step=per_epoch * (place + 1), train_loss=loss, train_accuracy=accuracy, val_loss=val[0],
            val_accuracy=val[1], learning_rate=1e-4, gradient_norm=5.0, pictures_per_s=20.0, elapsed_s=10.0, best=True, **facts,
        )
        for place, (loss, accuracy, val) in enumerate(zip(losses, accuracies, vals, strict=True))
    )  # fmt: skip


GOOD = epochs([0.5, 0.3, 0.2, 0.15], [0.8, 0.88, 0.92, 0.94], [(0.4, 0.87), (0.35, 0.88), (0.32, 0.9), (0.31, 0.9)])
FIGURES = {
    model: {split: Figures(0.9, 0.3, 120, dict.fromkeys(CLASSES, 0.9)) for split in ("val", "test")}
    for model in ("baseline", "fine-tuned")
}
COUNTS = {"train": dict.fromkeys(CLASSES, 240), "val": dict.fromkeys(CLASSES, 30), "test": dict.fromkeys(CLASSES, 30)}
LABELS = {
    "num_judged": 960,
    "num_sure": 320,
    "num_contradicted": 3,
    "mean_place": 0.1,
    "accuracy": 0.88,
    "num_expected": 3.0,
}
SCALES = {"given": -0.6, "ImageNet mean and std": -0.6, "mean 0, std 1": -3.5, "bytes of 0 to 255": 8.0}
MACHINE = {
    "best_device": "cpu",
    "best_device_name": "processor",
    "has_gpu_driver": False,
    "num_cores": 4,
    "num_threads": 4,
}
LEARNED = {
    "moved": [0.0, 0.0, 0.03, 0.05, 0.06, 0.5],
    "first_learning": 2,
    "plain_loss": 0.1,
    "plain_accuracy": 0.96,
    "num_plain": 96,
}
HEALTHY = Case(
    run="runs/one", folder="my photos", asked={"seed": 3}, plan=PLAN, history=GOOD, figures=FIGURES, kept="fine-tuned",
    classes=CLASSES, class_counts=COUNTS, labels=LABELS, inputs={"num_pictures": 48, "scales": SCALES, "order_t": -4.0},
    machine=MACHINE, learned=LEARNED,
)  # fmt: skip


def case(*, plan: dict[str, Any] | None = None, learned: dict[str, Any] | None = None, **changes: Any) -> Case:
    changed = dataclasses.replace(HEALTHY, **changes)
    return dataclasses.replace(changed, plan={**PLAN, **(plan or {})}, learned={**LEARNED, **(learned or {})})


def alarms(found: Case) -> list[str]:
    return [cause.finding.kind for cause in diagnose_case(found) if cause.finding.severity != "note"]


FAST = {"learning_rate": 3e-3}
HARMED = epochs([1.6, 1.3, 1.2, 1.1], [0.4, 0.45, 0.5, 0.55], [(1.5, 0.5)] * 4, first_loss=0.4, highest_loss=4.0)
BY_HEART = epochs(
    [0.5, 0.1, 0.02, 0.01, 0.005, 0.004], [0.8, 0.98, 1.0, 1.0, 1.0, 1.0],
    [(0.6, 0.75), (0.55, 0.78), (0.7, 0.77), (0.8, 0.77), (0.9, 0.77), (0.9, 0.77)],
)  # fmt: skip
FAILED = "The loss stopped being finite at step 5 of 90 (step 4: loss 8, gradient norm 1e+09). The baseline is saved."
# The cause, and a run that has it.
BROKEN: list[tuple[str, Case]] = [
    ("diverged", case(diverged=FAILED, history=(), plan={"learning_rate": 1.0})),
    ("diverged", case(history=epochs([9.0, 4.0, 3.0, 2.9], [0.25] * 4, [(2.0, 0.25)] * 4), plan=FAST)),
    ("rate_too_high", case(history=HARMED, plan=FAST)),
    ("rate_too_low", case(history=epochs([0.5] * 4, [0.8] * 4, [(0.4, 0.87)] * 4), plan={"learning_rate": 1e-6})),
    ("too_few_steps", case(history=epochs([0.5], [0.8], [(0.4, 0.87)], steps=8), plan={"epochs": 1})),
    ("over_fitting", case(history=BY_HEART, plan={"epochs": 6, "augmentation": "none"})),
    ("slow_convergence", case(
        history=epochs([1.3, 1.2, 1.1, 1.0], [0.3, 0.4, 0.45, 0.5], [(1.2, 0.4), (1.1, 0.45), (1.1, 0.5), (1.0, 0.5)]),
        plan={"learning_rate": 4e-4, "weights": "random", "batch_norm": "batch"}, learned={"plain_accuracy": 0.52})),
    ("under_fitting", case(
        history=epochs([1.3, 1.29, 1.31, 1.3], [0.3, 0.31, 0.3, 0.32], [(1.3, 0.3)] * 4),
        plan={"learning_rate": 1e-3, "weights": "random", "batch_norm": "batch"}, learned={"plain_accuracy": 0.33})),
    ("augmentation_too_strong", case(
        history=epochs([1.1, 0.9, 0.85, 0.8], [0.5, 0.6, 0.62, 0.65], [(0.4, 0.87)] * 4), plan={"augmentation": "heavy"})),
    ("label_noise", case(labels={**LABELS, "num_contradicted": 90, "mean_place": 0.5, "accuracy": 0.6})),
    ("label_noise", case(labels={**LABELS, "num_sure": 32, "num_contradicted": 15, "mean_place": 0.28, "accuracy": 0.54})),
    ("label_noise", case(labels={**LABELS, "num_sure": 60, "num_contradicted": 24, "mean_place": None, "accuracy": 0.6})),
    ("wrong_normalisation", case(inputs={"num_pictures": 48, "scales": {**SCALES, "given": -3.5}, "order_t": -1.0})),
    ("wrong_normalisation", case(inputs={"num_pictures": 48, "scales": SCALES, "order_t": 5.0})),
    ("validation_leaked", case(copies=tuple(Copy(f"t{n}", f"v{n}", "val", True) for n in range(40)), uncopied_accuracy=0.8)),
    ("validation_too_small", case(class_counts={**COUNTS, "val": dict.fromkeys(CLASSES, 2)})),
    ("frozen_by_mistake", case(learned={"moved": [0.0, 0.0, 0.0, 0.0, 0.0, 0.5]})),
    ("batch_norm_trouble", case(plan={"batch_norm": "batch", "batch_size": 2})),
    ("loader_starving", case(history=tuple(dataclasses.replace(each, waited_share=0.7) for each in GOOD))),
    ("device_not_used", case(machine={**MACHINE, "best_device": "cuda", "best_device_name": "a GPU"})),
    ("device_not_used", case(machine={**MACHINE, "num_threads": 1})),
    ("device_not_used", case(machine={**MACHINE, "has_gpu_driver": True})),
    ("imbalance", case(
        class_counts={**COUNTS, "train": {"ant": 900, "bee": 20, "cat": 20, "dog": 20}},
        figures={"fine-tuned": {"test": Figures(0.5, 1.0, 120, {"ant": 1.0, "bee": 0.3, "cat": 0.4, "dog": 0.3})}})),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cause", "broken"), BROKEN, ids=[f"{cause}-{place}" for place, (cause, _) in enumerate(BROKEN)]
)
def test_diagnose_case_of_a_broken_run_names_its_cause_first(cause: str, broken: Case) -> None:
    found = diagnose_case(broken)
    assert found[0].finding.kind == cause
    assert found[0].finding.severity != "note"
    for each in found:
        assert each.finding.kind in RUN_KINDS
        assert 0 < each.finding.score <= 1
        assert each.finding.remedy == each.remedies[0].command
        assert each.finding.evidence or each.finding.kind in ("label_noise", "diverged")


def test_every_kind_of_a_run_has_a_rule_that_a_broken_run_here_meets() -> None:
    assert {cause for cause, _ in BROKEN} == set(RUN_KINDS)


@pytest.mark.parametrize(
    "healthy",
    [
        HEALTHY,
        case(history=(), plan={"tune": "head"}),  # only a head was fitted
        case(
            labels={}, inputs={}, machine={}, learned={"plain_accuracy": None, "moved": None}
        ),  # a run of an earlier version
        case(labels={**LABELS, "num_contradicted": 40, "mean_place": 0.02}),  # alike classes, no wrong labels
        case(labels={**LABELS, "num_contradicted": 60, "mean_place": 0.24, "accuracy": 0.6}),  # a hard set
        case(labels={**LABELS, "num_contradicted": 50, "mean_place": 0.4, "accuracy": 0.6}),  # wrong where it is unsure
        case(
            labels={**LABELS, "num_sure": 60, "num_contradicted": 6, "mean_place": None, "accuracy": 0.9}
        ),  # two classes
        case(history=BY_HEART[:3], plan={"epochs": 3}),  # learned well, and stopped in time
        case(  # learned by heart, but validation is not far below
            history=tuple(dataclasses.replace(each, val_accuracy=0.9) for each in BY_HEART), plan={"epochs": 6}
        ),
        case(
            inputs={
                "num_pictures": 48,
                "scales": {**SCALES, "given": -1.6, "ImageNet mean and std": -1.6},
                "order_t": 1.0,
            }
        ),
        case(class_counts={**COUNTS, "train": {"ant": 300, "bee": 100, "cat": 240, "dog": 200}}),
        case(copies=(Copy("t", "v", "test", True),)),  # of that the data findings tell
        case(plan={"learning_rate": 1.5e-4}),
        case(plan={"batch_norm": "batch", "batch_size": 16, "learning_rate": 2e-4}),
    ],
)
def test_diagnose_case_of_a_healthy_run_alarms_nobody(healthy: Case) -> None:
    assert not alarms(healthy)


def test_diagnose_case_tells_signs_of_a_measured_cause_as_notes() -> None:
    noisy = case(labels={**LABELS, "num_contradicted": 90, "mean_place": 0.5, "accuracy": 0.6}, history=BY_HEART)
    found = diagnose_case(noisy)
    assert [(each.finding.kind, each.finding.severity) for each in found] == [
        ("label_noise", "serious"),
        ("over_fitting", "note"),
    ]


def test_diagnose_case_offers_the_remedies_of_the_guide() -> None:
    """SPEC 4: over-fitting wants augmentation, 30 to 50 % fewer epochs, 2e-5, or ResNet-18; slow learning 1e-4, epochs, batches."""
    (overfitted,) = diagnose_case(case(history=BY_HEART, plan={"augmentation": "none", "epochs": 6}))
    changes = [dict(remedy.changes) for remedy in overfitted.remedies]
    assert changes[0] == {"augmentation": "standard"}
    assert changes[1] == {"epochs": 3}
    assert changes[2]["learning_rate"] == 2e-5
    assert changes[3]["model"] == "resnet18"
    slow = dict(BROKEN)["slow_convergence"]
    offered = [dict(remedy.changes) for remedy in diagnose_case(slow)[0].remedies]
    assert [next(iter(each)) for each in offered] == ["learning_rate", "epochs", "batch_size"]


def test_train_command_has_what_was_asked_for_with_the_changes() -> None:
    asked = case(asked={"model": "resnet18", "epochs": 9, "beyond_guide": True, "weights": "my weights.safetensors"})
    told = train_command(asked, {"epochs": 4, "learning_rate": 2e-5, "beyond_guide": None, "ema": False})
    assert told == (
        "foldertune train 'my photos' --model resnet18 --epochs 4 --weights 'my weights.safetensors' --learning-rate 2e-05 --no-ema"
    )


def test_commands_of_findings_quote_a_folder_with_spaces() -> None:
    for _, broken in BROKEN:
        for each in diagnose_case(broken):
            for remedy in each.remedies:
                assert "my photos" not in remedy.command.replace("'my photos'", ""), remedy.command
                assert remedy.command.startswith(("foldertune ", "env -u OMP_NUM_THREADS foldertune "))


def test_looked_at_names_what_the_diagnosis_rests_on() -> None:
    told = "; ".join(looked_at(HEALTHY))
    assert "4 epochs" in told
    assert "960 labels" in told
    assert looked_at(
        case(history=(), labels={}, inputs={}, machine={}, class_counts={}, learned={"plain_accuracy": None})
    )


@given(st.integers(0, 400), st.integers(1, 400))
def test_interval_of_is_that_of_the_metrics(right: int, more: int) -> None:
    number = right + more
    known = wilson_interval(right, number)
    assert interval_of(right / number, number) == pytest.approx((known.low, known.high), abs=1e-6)


# Contradicted labels


def answers(num_pictures: int, *, seed: int, sharpness: float = 4.0, num_classes: int = 5) -> tuple[Any, Any]:
    """Answers of a calibrated model: labels are drawn from its own probabilities."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(num_pictures, num_classes)) * sharpness
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return shares, np.array([random.choice(num_classes, p=row) for row in shares])


@pytest.mark.parametrize("seed", range(5))
def test_find_contradictions_of_honest_labels_finds_no_more_than_calibration_allows(seed: int) -> None:
    shares, labels = answers(900, seed=seed)
    found = find_contradictions(shares, labels)
    assert found.num_sure == 300
    assert abs(found.num_contradicted - found.num_expected) < 4 * math.sqrt(found.num_expected + 1)
    assert found.mean_place is not None
    assert found.mean_place < 0.2


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_find_contradictions_counts_the_share_of_wrong_labels(share: float) -> None:
    shares, labels = answers(3000, seed=1, sharpness=8.0)
    random = np.random.default_rng(2)
    wrong = random.random(len(labels)) < share
    noisy = np.where(wrong, (labels + random.integers(1, 5, len(labels))) % 5, labels)
    found = find_contradictions(shares, noisy)
    assert found.num_contradicted / found.num_sure == pytest.approx(share, abs=0.05)
    assert found.mean_place is not None
    assert found.mean_place > 0.25
    place, answer, sure = found.suspects[0]
    assert noisy[place] != answer == shares[place].argmax()
    assert sure == pytest.approx(shares[place].max())


def test_find_contradictions_passes_over_pictures_that_no_fold_held_out() -> None:
    shares, labels = answers(60, seed=3)
    shares[10:] = np.nan
    assert find_contradictions(shares, labels).num_judged == 10
    shares[:] = np.nan
    assert find_contradictions(shares, labels).num_judged == 0
    two = find_contradictions(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([1, 1]))
    assert two.mean_place is None


# The verb, on a run folder


@pytest.fixture
def copied_run(small_run: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(small_run, tmp_path / "run"))


def test_diagnose_of_a_run_is_what_its_findings_file_and_its_event_hold(small_run: Path) -> None:
    stored = json.loads((small_run / "findings.json").read_text("utf-8"))["findings"]
    found = product.diagnose(small_run)
    assert [each["kind"] for each in stored] == [each.kind for each in found]
    assert product.load(small_run).diagnose() == found
    lines = [json.loads(line) for line in (small_run / "events.jsonl").read_text("utf-8").splitlines()]
    (told,) = [line["facts"]["findings"] for line in lines if line["kind"] == "diagnosed"]
    assert [each["sentence"] for each in told] == [each.sentence for each in found]
    said = foldertune("diagnose", str(small_run), "--json")
    assert json.loads(said.out)["findings"] == stored
    assert {"kind", "sentence", "severity", "score", "evidence", "remedy", "remedies"} == set(stored[0])


def test_diagnose_of_a_run_that_hardly_learned_says_so_with_a_command(small_run: Path) -> None:
    """One epoch of two steps on 48 pictures."""
    said = foldertune("diagnose", str(small_run))
    assert said.code == 0
    assert "foldertune train" in said.out
    assert "--epochs" in said.out
    assert "too few steps" in said.out


def test_diagnose_tells_what_was_measured_when_the_run_was_made(small_run: Path) -> None:
    found = case_of(RunFolder(small_run))
    assert found.machine["num_cores"] >= 1
    assert found.labels["num_judged"] > 0
    assert len(found.learned["moved"]) == 6
    assert all(share > 0 for share in found.learned["moved"])
    assert 0 <= (found.plain_accuracy or 0) <= 1
    assert found.history[0].waited_share is not None
    assert 0 <= found.history[0].waited_share <= 1
    assert found.history[0].highest_loss >= found.history[0].train_loss  # type: ignore[operator]  # measured


def test_diagnose_of_a_run_from_before_measurements_opens(copied_run: Path) -> None:
    (copied_run / "findings.json").unlink()
    events = [line for line in (copied_run / "events.jsonl").read_text("utf-8").splitlines() if '"epoch"' in line[:20]]
    (copied_run / "events.jsonl").write_text("\n".join([*events, "no json"]), "utf-8")
    rows = [json.loads(line) for line in (copied_run / "history.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        for name in ("first_loss", "highest_loss", "clipped_share", "waited_share"):
            del row[name]
    (copied_run / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    found = case_of(RunFolder(copied_run))
    assert not found.learned
    assert found.history[0].waited_share is None
    diagnose_run(RunFolder(copied_run))


def test_diagnose_of_an_interrupted_run_tells_what_is_known_so_far(copied_run: Path) -> None:
    for name in ("metrics.json", "predictions.npz", "findings.json", "report.html"):
        (copied_run / name).unlink()
    RunFolder(copied_run).update(state="started")
    assert "too_few_steps" in [each.kind for each in product.diagnose(copied_run)]
    (copied_run / "history.jsonl").unlink()
    assert "too_few_steps" not in [each.kind for each in product.diagnose(copied_run)]


def test_diagnose_finds_the_same_file_in_train_and_val(copied_run: Path) -> None:
    from foldertune.data.table import dataset_facts, read_dataset, write_dataset

    run = RunFolder(copied_run)
    dataset = read_dataset(run.dataset_csv, run.open()["dataset"])
    same = dataset.of("train")[0].sha256
    val = dataset.of("val")[0].row
    pictures = tuple(dataclasses.replace(each, sha256=same) if each.row == val else each for each in dataset.pictures)
    changed = dataclasses.replace(dataset, pictures=pictures)
    write_dataset(run.dataset_csv, changed)
    run.update(dataset=dataset_facts(changed))
    leaked = [each for each in product.diagnose(copied_run) if each.kind == "validation_leaked"]
    assert [row.path for row in leaked[0].evidence] == [dataset.pictures[val].path]


def test_diagnose_of_what_is_no_run_or_has_no_plan_says_what_to_do(tmp_path: Path, copied_run: Path) -> None:
    with pytest.raises(MissingError, match=r"There is no run folder .*Give the folder that `train --run` made"):
        product.diagnose(tmp_path / "nothing")
    (copied_run / "plan.json").unlink()
    with pytest.raises(DataError, match=r"has no plan yet, so there is nothing to diagnose\. Train first"):
        product.diagnose(copied_run)


def test_train_from_a_run_applies_what_mends_a_finding_and_records_it(small_run: Path, tmp_path: Path) -> None:
    kinds = {each.kind: each for each in product.diagnose(small_run)}
    assert "too_few_steps" in kinds
    started = start_mended(small_run, "too_few_steps", run=tmp_path / "mended")
    facts, earlier = started.folder.open(), RunFolder(small_run).open()
    assert facts["folder"] == earlier["folder"]
    assert facts["origin"]["finding"] == "too_few_steps"
    assert facts["origin"]["run"] == str(small_run)
    epochs = facts["origin"]["changes"]["epochs"]
    assert epochs > 1
    assert facts["settings"] == {**earlier["settings"], "epochs": epochs}
    assert f"--epochs {epochs}" in kinds["too_few_steps"].remedy


def test_train_from_a_run_refuses_what_it_has_not_found(small_run: Path) -> None:
    said = foldertune("train", "--from", str(small_run), "--apply", "haste")
    assert said.code == 2
    assert "has no finding 'haste'. It has: " in said.err
    assert "too_few_steps" in said.err
    for words in (
        ("--from", str(small_run)),
        ("--apply", "haste"),
        ("pictures", "--from", str(small_run), "--apply", "haste"),
    ):
        assert foldertune("train", *words).code == 2


def test_train_from_a_run_refuses_a_finding_that_no_setting_mends(small_run: Path) -> None:
    """Its 6 validation pictures choose almost by chance."""
    with pytest.raises(SettingsError, match=r"No setting mends validation_too_small: .*What does: `foldertune train "):
        start_mended(small_run, "validation_too_small")


@pytest.mark.parametrize(
    ("broken", "command"),
    [
        (case(copies=tuple(Copy(f"t{n}", f"v{n}", "val", True) for n in range(40)), uncopied_accuracy=0.8),
         "foldertune look 'my photos' --group-by '^(p\\d+)' --seed 3 --write-patch patch.csv"),
        (case(class_counts={**COUNTS, "val": dict.fromkeys(CLASSES, 2)}),
         "foldertune train 'my photos' --group-by '^(p\\d+)' --seed 3 --epochs 9"),
        (case(machine={**MACHINE, "num_threads": 1}),
         "env -u OMP_NUM_THREADS foldertune train 'my photos' --group-by '^(p\\d+)' --seed 3 --epochs 9"),
    ],
)  # fmt: skip
def test_commands_that_no_setting_changes_have_the_settings_of_the_run(broken: Case, command: str) -> None:
    asked = {"group_by": r"^(p\d+)", "seed": 3, "epochs": 9}
    found = diagnose_case(dataclasses.replace(broken, asked=asked))[0]
    assert found.finding.remedy == command


def test_kinds_are_a_closed_list_with_a_sentence_each() -> None:
    assert {**DATA_KINDS, **RUN_KINDS}.keys() == KINDS.keys()
    assert all(sentence and not sentence.endswith(".") for sentence in KINDS.values())
    page = (Path(__file__).parent.parent / "docs" / "diagnose.md").read_text("utf-8")
    for kind in RUN_KINDS:
        assert f"| `{kind}` |" in page, kind


def test_evidence_of_wrong_labels_names_pictures_and_classes() -> None:
    suspects = (Evidence("ant/1.png", 0.9, label="ant", suggested="bee"),)
    noisy = case(labels={**LABELS, "num_contradicted": 90, "mean_place": 0.5, "accuracy": 0.6}, suspects=suspects)
    assert diagnose_case(noisy)[0].finding.evidence == suspects


def test_find_contradictions_passes_over_classes_of_one_picture() -> None:
    """No model has seen another picture of them, so that nobody can answer them right."""
    random = np.random.default_rng(0)
    labels = np.concatenate([np.repeat([0, 1], 30), np.arange(2, 22)])
    probabilities = random.dirichlet(np.full(22, 0.05), len(labels))
    probabilities[np.arange(60), labels[:60]] += 5
    probabilities /= probabilities.sum(1, keepdims=True)
    found = find_contradictions(probabilities, labels)
    assert (found.num_judged, found.num_contradicted) == (60, 0)


@pytest.mark.parametrize(
    ("asked", "beyond"), [({"epochs": 50}, True), ({"epochs": 5}, False), ({"learning_rate": 1e-3}, True)]
)
def test_commands_of_remedies_say_where_a_value_lies_beyond_the_guide(asked: dict[str, Any], beyond: bool) -> None:
    """Else `train` would refuse what the diagnosis tells to type."""
    command = train_command(case(asked=asked), {"augmentation": "heavy", "beyond_guide": None})
    assert ("--beyond-guide" in command) == beyond
