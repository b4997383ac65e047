"""The plan as a table: facts in, decisions out. SPEC's values of the guide stand here once more, typed from the guide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldertune.errors import MissingError, SettingsError
from foldertune.forecast import (
    LEAST_TRAVEL,
    NUM_FEATURES,
    SECOND_HEAD_S,
    SETTLED_PICTURES,
    TRIALS_S,
    WORTHWHILE,
    Probe,
    Situation,
    Survey,
    lacks_of_disk,
)
from foldertune.machine import Machine
from foldertune.planning import RULES, decide, refuse_too_little
from foldertune.records import Forecast, Plan
from foldertune.settings import RANGES, TrainSettings, check_settings

CPU = Machine("cpu", "processor", 2, 24_000, 20_000, 20_000, 100_000, bf16=False)
GPU = Machine("cuda", "GPU", 16, 128_000, 100_000, 80_000, 100_000, bf16=True)
SMALL_GPU = replace(GPU, device_memory_mib=8_000)
PROBE = Probe(start_s=5, decode_per_s=500, features_per_s=40, train_per_s=10, validate_per_s=30, memory_mib=1_500)


def situation(num_pictures: int, machine: Machine = CPU, probe: Probe | None = None, **changes: Any) -> Situation:
    train = round(0.7 * num_pictures)
    facts = Situation(
        num_pictures=num_pictures, num_train=train, num_val=num_pictures // 7, num_classes=10,
        largest_class=train // 10, smallest_class=train // 10, shorter_px=300, machine=machine, probe=probe,
    )  # fmt: skip
    return replace(facts, **changes)


@pytest.mark.parametrize(
    ("num_pictures", "batch", "epochs", "rate", "augmentation"),
    [
        (500, 8, (15, 20), 2e-5, "heavy"),
        (999, 8, (15, 20), 2e-5, "heavy"),
        (1_000, 16, (5, 10), 5e-5, "standard"),
        (10_000, 16, (5, 10), 5e-5, "standard"),
        (10_001, 32, (3, 5), 1e-4, "light"),
        (50_000, 32, (3, 5), 1e-4, "light"),
        (50_001, 32, (1, 3), 1e-4, "light"),
        (1_000_000, 32, (1, 3), 1e-4, "light"),
    ],
)
def test_decide_documented_preset_follows_the_guides_table(
    num_pictures: int, batch: int, epochs: tuple[int, int], rate: float, augmentation: str
) -> None:
    plan = decide(situation(num_pictures), {"preset": "documented"})
    assert (plan["batch_size"], plan["learning_rate"], plan["augmentation"]) == (batch, rate, augmentation)
    assert epochs[0] <= plan["epochs"] <= epochs[1]
    assert plan["tune"] == "all"


def test_decide_documented_preset_below_the_guides_least_takes_its_small_row() -> None:
    plan = decide(situation(100), {"preset": "documented"})
    assert (plan["batch_size"], plan["epochs"], plan["learning_rate"]) == (8, 20, 2e-5)


def test_decide_documented_preset_takes_the_largest_batch_where_memory_allows() -> None:
    assert decide(situation(60_000, GPU), {"preset": "documented"})["batch_size"] == 64
    assert decide(situation(60_000, SMALL_GPU), {"preset": "documented"})["batch_size"] == 32


def test_decide_documented_epochs_fall_as_the_set_grows() -> None:
    counts = [500, 700, 999, 1_000, 3_000, 10_000, 10_001, 30_000, 50_000, 50_001, 200_000]
    epochs = [decide(situation(count), {"preset": "documented"})["epochs"] for count in counts]
    assert epochs == sorted(epochs, reverse=True)


@pytest.mark.parametrize(
    ("preset", "batch", "epochs", "rate"),
    [("guide-defaults", 4, 1, 5e-5), ("products", 16, 8, 5e-5), ("xray", 8, 12, 3e-5), ("plants", 16, 10, 5e-5)],
)
@pytest.mark.parametrize("num_pictures", [300, 3_000, 12_500, 80_000])
def test_decide_fixed_presets_are_exact_at_any_size(
    preset: str, batch: int, epochs: int, rate: float, num_pictures: int
) -> None:
    plan = decide(situation(num_pictures, GPU), {"preset": preset})  # type: ignore[typeddict-item]  # a table of presets
    assert (plan["batch_size"], plan["epochs"], plan["learning_rate"]) == (batch, epochs, rate)


def test_decide_guide_defaults_on_a_small_set_warns_of_too_few_steps_before_it_starts() -> None:
    plan = decide(situation(600), {"preset": "guide-defaults"})
    steps = -(-situation(600).num_train // 4)
    assert steps * 5e-5 < LEAST_TRAVEL
    assert any("Too few steps to learn" in text and "--preset auto" in text for text in plan.warnings)


@pytest.mark.parametrize("num_pictures", [200, 800, 2_000, 8_000, 40_000])
@pytest.mark.parametrize("machine", [CPU, replace(CPU, bf16=True), GPU])
@pytest.mark.parametrize("probed", [False, True])
def test_decide_auto_preset_never_warns_of_too_few_steps(num_pictures: int, machine: Machine, probed: bool) -> None:
    """Not even where the time that it allows itself is short: then it says that it takes longer."""
    plan = decide(situation(num_pictures, machine, PROBE if probed else None, survey=NEAR), {})
    assert not [text for text in plan.warnings if "Too few" in text]


def test_decide_auto_epochs_that_do_not_fit_give_the_true_reason() -> None:
    slow = replace(PROBE, train_per_s=1.0)
    decision = next(one for one in decide(situation(800, TUNED_WHOLE, slow), {}).decisions if one.setting == "epochs")
    assert decision.value >= 2
    assert decision.reason.startswith("the fewest that make sense; ")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "batch_size": st.integers(2, 64),
            "epochs": st.integers(1, 30),
            "learning_rate": st.floats(1e-5, 5e-4),
            "eval_steps": st.integers(1, 40),
            "seed": st.integers(0, 2**32 - 1),
            "fit": st.sampled_from(["crop", "squash", "letterbox"]),
            "augmentation": st.sampled_from(["none", "light", "standard", "heavy"]),
            "tune": st.sampled_from(["all", "upper", "head"]),
        },
    ),
    st.integers(10, 200_000),
    st.sampled_from([CPU, GPU, SMALL_GPU]),
)
def test_decide_keeps_what_the_user_says_and_gives_every_other_setting_a_reason(
    given_settings: dict[str, Any], num_pictures: int, machine: Machine
) -> None:
    plan = decide(situation(num_pictures, machine, PROBE), check_settings(given_settings))
    assert [decision.setting for decision in plan.decisions] == list(RULES)
    for decision in plan.decisions:
        assert decision.reason
        assert decision.rule
        if decision.setting in given_settings:
            assert (decision.value, decision.source) == (given_settings[decision.setting], "user")
        else:
            assert decision.source == "rule"
    assert plan.forecast is not None
    assert plan.forecast.minutes > 0


@given(st.integers(10, 200_000), st.sampled_from([CPU, replace(CPU, bf16=True), GPU]), st.booleans())
def test_decide_repeats_itself_on_the_same_facts(num_pictures: int, machine: Machine, probed: bool) -> None:
    facts = situation(num_pictures, machine, PROBE if probed else None)
    assert decide(facts, {}) == decide(facts, {})


@pytest.mark.parametrize(
    ("num_pictures", "reason"),
    [
        (
            800,
            "the default; for 800 pictures the guide takes resnet18, and foldertune compare tells which is better here",
        ),
        (1_000, "accurate for its cost on 1,000 to 10,000 pictures; the guide's default"),
        (10_000, "accurate for its cost on 1,000 to 10,000 pictures; the guide's default"),
        (
            20_000,
            "the default; for 20,000 pictures the guide takes resnet101 or vit_base, and foldertune compare tells which is better here",
        ),
    ],
)
def test_decide_model_names_what_the_guide_takes_for_so_many_pictures(num_pictures: int, reason: str) -> None:
    plan = decide(situation(num_pictures), {})
    (told,) = (each for each in plan.decisions if each.setting == "model")
    assert (told.value, told.reason) == ("resnet50", reason)


def test_decide_settings_from_a_file_are_told_apart_from_typed_ones() -> None:
    plan = decide(situation(800), {"epochs": 3, "seed": 5}, sources={"epochs": "file", "seed": "user"})
    assert {row.setting: row.source for row in plan.decisions if row.rule == "given"} == {
        "epochs": "file",
        "seed": "user",
    }


def test_decide_random_start_trains_every_layer_on_batch_statistics() -> None:
    plan = decide(situation(800), {"weights": "random"})
    assert (plan["tune"], plan["batch_norm"], plan["layer_decay"]) == ("all", "batch", 1.0)


def test_decide_precision_bf16_only_where_it_is_native() -> None:
    assert decide(situation(800), {})["precision"] == "float32"
    assert decide(situation(800, replace(CPU, bf16=True)), {})["precision"] == "bf16"
    assert decide(situation(800, GPU), {})["precision"] == "bf16"


@pytest.mark.parametrize(
    ("largest", "smallest", "expected"), [(29, 10, "none"), (30, 10, "weights"), (100, 1, "weights")]
)
def test_decide_uneven_classes_get_weights_from_three_to_one(largest: int, smallest: int, expected: str) -> None:
    assert decide(situation(800, largest_class=largest, smallest_class=smallest), {})["imbalance"] == expected


def test_decide_fp16_on_a_processor_is_refused_with_what_to_take() -> None:
    with pytest.raises(SettingsError, match="fp16 is for GPUs; on a processor take float32 or bf16"):
        decide(situation(800), {"precision": "fp16"})


def test_decide_preset_with_head_alone_is_refused() -> None:
    with pytest.raises(SettingsError, match="trains every layer; leave out --tune head"):
        decide(situation(800), {"preset": "documented", "tune": "head"})


@pytest.mark.parametrize("minutes", [1.0, 3.0, 10.0, 60.0])
def test_decide_time_limit_bounds_the_forecast_where_one_epoch_fits(minutes: float) -> None:
    plan = decide(situation(800, probe=PROBE), {"max_minutes": minutes})
    assert plan.forecast is not None
    assert plan.forecast.minutes <= minutes or plan["epochs"] == 1
    told = ("stop training early", "The baseline alone takes longer")
    assert plan.forecast.minutes <= minutes or any(text in warning for warning in plan.warnings for text in told)


def test_decide_time_limit_below_what_the_baseline_takes_says_that_it_is_not_kept() -> None:
    warnings = decide(situation(8_000, probe=PROBE), {"max_minutes": 1}).warnings
    assert any(
        text.startswith("The baseline alone takes longer than --max-minutes 1 and is not cut short;")
        for text in warnings
    )


def test_decide_forecast_adds_up_what_the_probe_measured() -> None:
    settings: TrainSettings = {"tune": "all", "epochs": 5, "augmentation": "light"}
    forecast = decide(situation(1_000, probe=PROBE), settings).forecast
    longer = decide(situation(1_000, probe=PROBE), {**settings, "epochs": 6}).forecast
    assert forecast is not None
    assert longer is not None
    one_epoch_s = 700 / PROBE.train_per_s + 142 / PROBE.validate_per_s
    assert 60 * (longer.minutes - forecast.minutes) == pytest.approx(one_epoch_s, rel=1e-6)
    far = [situation(1_000, TUNED_WHOLE, PROBE, survey=FAR), {**settings, "epochs": 5}, {**settings, "epochs": 6}]
    spans = [decide(far[0], chosen).forecast for chosen in far[1:]]  # type: ignore[arg-type]
    assert spans[0] is not None
    assert spans[1] is not None
    settled_s = SETTLED_PICTURES / PROBE.validate_per_s  # statistics are measured before each validation
    assert 60 * (spans[1].minutes - spans[0].minutes) == pytest.approx(one_epoch_s + settled_s, rel=1e-6)


def test_decide_forecast_counts_the_heads_that_are_fitted_beside_the_baselines() -> None:
    def seconds(num_classes: int, **settings: Any) -> float:
        facts = situation(1_000, probe=PROBE, num_classes=num_classes)
        forecast = decide(facts, {"tune": "head", **settings}).forecast  # type: ignore[typeddict-item]
        assert forecast is not None
        return 60 * forecast.minutes

    work = 1_000 * NUM_FEATURES
    assert seconds(20) - seconds(10) == pytest.approx(10 * work * (SECOND_HEAD_S + TRIALS_S))
    assert seconds(20, weights="random") - seconds(10, weights="random") == pytest.approx(10 * work * TRIALS_S)
    many = int(WORTHWHILE / work) + 1  # trials are not worth their time any more
    assert seconds(many) - seconds(many - 1) == pytest.approx(work * SECOND_HEAD_S - (many - 1) * work * TRIALS_S)


def test_decide_own_time_limit_takes_as_many_epochs_of_many_classes_as_of_few() -> None:
    few, many = (decide(situation(1_000, TUNED_WHOLE, PROBE, survey=NEAR, num_classes=num), {}) for num in (2, 90))
    assert few["epochs"] == many["epochs"]


def test_decide_too_little_memory_or_disk_warns_with_what_to_do() -> None:
    poor = replace(CPU, free_memory_mib=500, free_disk_mib=100)
    warnings = decide(situation(1_000, poor, PROBE), {}).warnings
    assert any("MiB of memory are needed" in text and "--batch-size" in text for text in warnings)
    assert any(
        text.startswith("The run needs about ") and "MiB of disk and 100 MiB are free. " in text for text in warnings
    )


NEEDS = Forecast(minutes=1, memory_mib=1, disk_mib=3_000, cache_mib=2_000)
FULL_CACHE = (
    "The cache needs about 2,000 MiB of disk and has room for {} MiB. "
    "Free space, or set FOLDERTUNE_CACHE to a disk with more of it."
)
IN_MEMORY = " Memory takes its place in this run, and the next one makes everything again."


@pytest.mark.parametrize(
    ("facts", "run", "cache"),
    [
        ({"free_disk_mib": 1_000, "free_cache_mib": 2_000}, "", ""),
        (
            {"free_disk_mib": 999, "free_cache_mib": 9_000},
            "The run needs about 1,000 MiB of disk and 999 MiB are free. Free space, or set --run to a disk with more of it.",
            "",
        ),
        ({"free_disk_mib": 5_000, "free_cache_mib": 3_000, "cache_beside_run": True}, "", ""),
        ({"free_cache_mib": 2_999, "cache_beside_run": True, "free_memory_mib": 3_999}, "", FULL_CACHE.format("1,999")),
        ({"free_cache_mib": 500, "cache_beside_run": True, "free_memory_mib": 0}, "", FULL_CACHE.format("0")),
        ({"free_cache_mib": 0, "free_memory_mib": 4_000}, "", FULL_CACHE.format("0") + IN_MEMORY),
    ],
)
def test_lacks_of_disk_tells_run_and_cache_apart(facts: dict[str, Any], run: str, cache: str) -> None:
    assert lacks_of_disk(NEEDS, replace(CPU, **facts)) == (run, cache)


def test_refuse_too_little_lets_a_full_cache_pass_where_memory_has_room() -> None:
    plan = Plan((), NEEDS)
    refuse_too_little(plan, replace(CPU, free_cache_mib=0, free_memory_mib=4_000))
    with pytest.raises(MissingError) as caught:
        refuse_too_little(plan, replace(CPU, free_cache_mib=0, free_memory_mib=3_999))
    assert str(caught.value) == FULL_CACHE.format("0")
    with pytest.raises(MissingError, match=r"^The run needs about 1,000 MiB of disk and 10 MiB are free\."):
        refuse_too_little(plan, replace(CPU, free_disk_mib=10))


def test_decide_forecast_says_what_of_the_disk_the_cache_takes() -> None:
    small, large = (decide(situation(count, CPU, PROBE), {"tune": "all"}).forecast for count in (500, 1_000))
    assert small is not None
    assert large is not None
    assert large.cache_mib == pytest.approx(2 * small.cache_mib, rel=0.01)
    assert large.disk_mib - large.cache_mib == small.disk_mib - small.cache_mib


def test_decide_every_ranged_setting_is_within_its_range() -> None:
    for num_pictures in (20, 500, 5_000, 100_000):
        for machine in (CPU, GPU):
            values = decide(situation(num_pictures, machine), {}).values()
            for name, allowed in RANGES.items():
                if values.get(name) is not None and not allowed.guide:
                    assert values[name] in allowed, name


@pytest.mark.parametrize(("px", "fit"), [(160, "letterbox"), (384, "crop")])
def test_decide_takes_size_and_fit_of_the_weights_own_preprocessing(px: int, fit: str) -> None:
    plan = decide(situation(800, weights_px=px, weights_fit=fit), {})
    assert (plan["image_size"], plan["fit"]) == (px, fit)
    assert decide(situation(800, weights_px=px), {"image_size": 224})["image_size"] == 224


def test_decide_disk_has_room_for_three_states_of_the_network() -> None:
    small, large = (
        decide(situation(800, CPU, PROBE, num_parameters=count), {"tune": "all"}).forecast
        for count in (10**7, 3 * 10**8)
    )
    assert small is not None
    assert large is not None
    state_mib = 4 * 4 * (3 * 10**8 - 10**7) / 2**20  # weights, two moments of AdamW, the best weights
    assert large.disk_mib - small.disk_mib >= 3 * state_mib


# ------------------------------------------------------------------------------------------------------- orientation


@pytest.mark.parametrize(("share", "orientation"), [(0.25, "any"), (0.39, "any"), (0.4, "upright"), (0.97, "upright")])
def test_orientation_follows_what_the_frozen_network_could_tell(share: float, orientation: str) -> None:
    decision = next(
        one
        for one in decide(situation(1_000, survey=Survey(share, None)), {}).decisions
        if one.setting == "orientation"
    )
    assert decision.value == orientation
    assert f"{share:.0%}" in decision.reason


@pytest.mark.parametrize("settings", [{"preset": "plants"}, {"augmentation": "none"}])
def test_orientation_of_other_presets_and_without_augmentation_is_upright(settings: TrainSettings) -> None:
    assert decide(situation(1_000, survey=Survey(0.25, None)), settings)["orientation"] == "upright"


def test_orientation_that_was_not_measured_is_upright_unless_the_user_says_otherwise() -> None:
    assert decide(situation(1_000), {})["orientation"] == "upright"
    assert decide(situation(1_000), {"orientation": "any"})["orientation"] == "any"


# ------------------------------------------------------------------------------------------------------- far pictures


@pytest.mark.parametrize(("share", "expected"), [(0.0, True), (0.5, False), (1.0, False)])
def test_decide_mirrors_pictures_unless_that_turns_a_class_into_another(share: float, expected: bool) -> None:
    plan = decide(situation(1_000, survey=Survey(0.9, 0.26, swapped=share)), {"augmentation": "light"})
    assert plan["flip"] is expected
    (told,) = [one for one in plan.decisions if one.setting == "flip"]
    assert ("look like another class when they are mirrored" in told.reason) is not expected


def test_decide_keeps_flip_and_hue_as_they_were_asked_for_and_mirrors_nothing_without_augmentation() -> None:
    swapped = situation(1_000, survey=Survey(0.9, 0.26, swapped=1.0))
    plan = decide(swapped, {"flip": True, "hue": False, "augmentation": "light"})
    assert (plan["flip"], plan["hue"]) == (True, False)
    assert decide(situation(1_000), {"augmentation": "none"})["flip"] is False
    assert decide(swapped, {"preset": "documented", "augmentation": "light"})["flip"] is True  # the guide mirrors
    assert decide(situation(1_000), {"augmentation": "light"})["flip"] is True  # nothing was measured


FAR, NEAR = Survey(0.9, 0.57, grey=True), Survey(0.9, 0.26)
TUNED_WHOLE = replace(CPU, bf16=True)


def test_decide_of_the_last_stage_alone_warns_of_no_few_steps() -> None:
    for tune, warned in (("all", True), ("upper", False)):
        settings = check_settings({"tune": tune, "epochs": 1, "learning_rate": 1e-4})
        plan = decide(situation(200, CPU, PROBE, survey=NEAR), settings)
        assert any("Too few steps" in text for text in plan.warnings) is warned


def test_decide_with_little_memory_learns_from_half_as_many_pictures_at_once() -> None:
    short = replace(CPU, free_memory_mib=1_800)
    plan = decide(situation(1_000, short, PROBE, survey=NEAR), {})
    row = next(each for each in plan.decisions if each.setting == "batch_size")
    assert (row.value, row.rule) == (8, "memory")
    assert "1,800 MiB of memory are free" in row.reason
    assert decide(situation(1_000, replace(CPU, free_memory_mib=2_500), PROBE, survey=NEAR), {})["batch_size"] == 16


def test_decide_on_far_pictures_and_a_busy_machine_takes_no_fewer_than_four_epochs() -> None:
    slow = replace(PROBE, train_per_s=1.0, validate_per_s=3.0, features_per_s=3.0)
    for survey in (FAR, Survey(0.25, 0.48)):
        assert decide(situation(600, TUNED_WHOLE, slow, survey=survey), {})["epochs"] == 4
    limited = decide(situation(600, TUNED_WHOLE, slow, survey=FAR), {"max_minutes": 1.0})
    assert limited["epochs"] == 1  # the user's own limit goes first


def test_pictures_far_from_the_pretraining_ones_get_a_head_and_statistics_of_their_own() -> None:
    plan = decide(situation(800, TUNED_WHOLE, survey=FAR), {})
    chosen = [plan[name] for name in ("batch_norm", "head_start", "augmentation", "layer_decay", "tie")]
    assert chosen == ["body", "zero", "standard", 1.0, "fine-tuned"]
    assert (plan["head_factor"], plan["blend"], plan["keep_within"]) == (10.0, False, 2.0)
    assert (plan["learning_rate"], plan["first_learning"]) == (2e-4, 0)
    reasons = {one.setting: one.reason for one in plan.decisions}
    assert "e^0.57" in reasons["batch_norm"]


def test_far_pictures_without_an_upright_side_are_turned_instead_of_coloured() -> None:
    plan = decide(situation(800, TUNED_WHOLE, survey=Survey(0.25, 0.48)), {})
    chosen = [plan[name] for name in ("augmentation", "orientation", "learning_rate", "batch_norm", "head_factor")]
    assert chosen == ["light", "any", 3e-4, "batch", 10.0]


@pytest.mark.parametrize(
    ("survey", "num_pictures", "epochs"),
    [
        (NEAR, 1_821, 3),  # 1,275 to train
        (NEAR, 720, 5),
        (NEAR, 40_000, 2),
        (FAR, 728, 4),
        (FAR, 40_000, 4),
        (Survey(0.25, 0.48), 720, 7),
        (Survey(0.25, 0.48), 14_000, 4),
    ],
)
@pytest.mark.parametrize("speed", [20, 200])
def test_epochs_on_a_processor_are_what_suffices_however_fast_it_is(
    survey: Survey, num_pictures: int, epochs: int, speed: int
) -> None:
    fast = replace(PROBE, train_per_s=speed * num_pictures, features_per_s=1e6, decode_per_s=1e6, validate_per_s=1e6)
    assert decide(situation(num_pictures, TUNED_WHOLE, fast, survey=survey), {})["epochs"] == epochs


def test_epochs_of_a_small_set_are_enough_to_move_the_network() -> None:
    """At 35 pictures three steps an epoch, of which the passes of larger sets would make too few."""
    for survey in (NEAR, FAR):
        facts = situation(50, TUNED_WHOLE, replace(PROBE, train_per_s=1e4), survey=survey)
        decision = next(one for one in decide(facts, {}).decisions if one.setting == "epochs")
        assert decision.value >= 15
        assert decision.reason == "35 training pictures: fewer passes hardly move the network"


@pytest.mark.parametrize(("machine", "settings"), [(GPU, {}), (TUNED_WHOLE, {"max_minutes": 600})])
def test_epochs_where_time_is_no_matter_are_those_that_the_size_of_the_set_asks_for(
    machine: Machine, settings: TrainSettings
) -> None:
    fast = replace(PROBE, train_per_s=1e4)
    for num_pictures, epochs in ((714, 12), (100_000, 3)):
        facts = situation(num_pictures, machine, fast, survey=NEAR, whole=fast)
        assert decide(facts, settings)["epochs"] == epochs


def test_far_pictures_that_may_be_turned_get_more_time() -> None:
    fast = replace(PROBE, train_per_s=20)
    plans = [decide(situation(800, TUNED_WHOLE, fast, survey=Survey(share, 0.48)), {}) for share in (0.25, 0.9)]
    assert plans[0]["epochs"] > plans[1]["epochs"]


@pytest.mark.parametrize(
    ("survey", "machine", "settings"),
    [
        (NEAR, TUNED_WHOLE, {}),
        (None, TUNED_WHOLE, {}),
        (Survey(0.9, None), TUNED_WHOLE, {}),  # a network without batch norms
        (FAR, TUNED_WHOLE, {"preset": "xray"}),
    ],
)
def test_other_pictures_go_on_from_the_fitted_head(
    survey: Survey | None, machine: Machine, settings: TrainSettings
) -> None:
    plan = decide(situation(800, machine, survey=survey), settings)
    assert (plan["batch_norm"], plan["head_start"], plan["tie"]) == ("frozen", "fitted", "baseline")
    assert plan["keep_within"] == 0.0


def test_last_stage_on_far_pictures_goes_on_from_the_fitted_head_as_far_as_it_comes() -> None:
    plan = decide(situation(800, TUNED_WHOLE, survey=FAR), {"tune": "upper"})
    assert (plan["batch_norm"], plan["head_start"], plan["head_factor"]) == ("frozen", "fitted", 1.0)
    assert (plan["tie"], plan["keep_within"], plan["blend"]) == ("fine-tuned", 2.0, False)
    assert (plan["learning_rate"], plan["epochs"], plan["views"]) == (3e-4, 5, 2)


@pytest.mark.parametrize(
    ("machine", "settings", "stage"),
    [
        (TUNED_WHOLE, {}, 2),
        (GPU, {}, 0),
        (TUNED_WHOLE, {"weights": "random"}, 0),
        (TUNED_WHOLE, {"preset": "plants"}, 0),
        (TUNED_WHOLE, {"tune": "upper"}, 0),
    ],
)
def test_lowest_stages_of_a_pretrained_network_do_not_learn_on_a_processor(
    machine: Machine, settings: TrainSettings, stage: int
) -> None:
    assert decide(situation(800, machine, survey=NEAR), settings)["first_learning"] == stage


FAST = replace(PROBE, train_per_s=15.0)


@pytest.mark.parametrize(
    ("survey", "minutes", "tune"),
    [
        (NEAR, None, "all"),
        (NEAR, 10, "all"),
        (NEAR, 3.5, "all"),
        (NEAR, 2.2, "head"),  # the last stage would fit and earn nothing
        (NEAR, 1.0, "head"),
        (FAR, None, "all"),
        (FAR, 10, "all"),
        (FAR, 4.5, "upper"),  # a network that adapts needs twice as many epochs
        (FAR, 1.0, "head"),
    ],
)
@pytest.mark.parametrize("machine", [TUNED_WHOLE, CPU])
def test_layers_that_learn_are_those_that_earn_something_in_the_time(
    machine: Machine, survey: Survey, minutes: float | None, tune: str
) -> None:
    settings: TrainSettings = {} if minutes is None else {"max_minutes": minutes}
    plan = decide(situation(800, machine, FAST, survey=survey, whole=FAST), settings)
    assert plan["tune"] == tune
    decision = next(one for one in plan.decisions if one.setting == "tune")
    assert decision.rule == "tune-by-gain"
    assert "at 15.0 pictures a second as measured" in decision.reason
    assert ("% of the limit of" in decision.reason) == (minutes is not None)


@pytest.mark.parametrize(
    ("survey", "speed", "tune"),
    [
        (NEAR, 15, "all"),
        (NEAR, 1, "head"),
        (FAR, 5, "all"),
        (FAR, 0.8, "upper"),
        (FAR, 0.05, "head"),
    ],
)
def test_layers_that_learn_without_a_limit_are_those_whose_gain_is_worth_their_minutes(
    survey: Survey, speed: float, tune: str
) -> None:
    slow = replace(PROBE, train_per_s=speed)
    plan = decide(situation(800, TUNED_WHOLE, slow, survey=survey, whole=slow), {})
    assert plan["tune"] == tune
    if tune == "head":
        decision = next(one for one in plan.decisions if one.setting == "tune")
        assert decision.reason.startswith("fine-tuning earns too little for its time")


def test_layers_that_learn_are_all_where_nobody_measured_and_on_a_gpu() -> None:
    for machine in (CPU, TUNED_WHOLE, GPU):
        assert decide(situation(800, machine, survey=FAR), {})["tune"] == "all"
    slow = replace(PROBE, train_per_s=0.1)
    assert decide(situation(800, GPU, slow, survey=NEAR, whole=slow), {})["tune"] == "all"


@pytest.mark.parametrize(("survey", "least"), [(NEAR, 2), (FAR, 4)])
def test_layers_that_learn_are_fewer_the_less_time_there_is_and_all_of_them_have_their_epochs(
    survey: Survey, least: int
) -> None:
    order, facts = ["head", "upper", "all"], situation(800, TUNED_WHOLE, FAST, survey=survey, whole=FAST)
    plans = [decide(facts, {"max_minutes": minutes / 10}) for minutes in range(5, 150)]
    found = [order.index(plan["tune"]) for plan in plans]
    assert found == sorted(found)
    assert set(found) == ({0, 2} if survey is NEAR else {0, 1, 2})
    assert all(plan["epochs"] >= least for plan in plans if plan["tune"] == "all")


# ---------------------------------------------------------------------------------------------------------- train size


@pytest.mark.parametrize(
    ("settings", "train_size"),
    [
        ({}, 192),
        ({"image_size": 192}, 160),
        ({"image_size": 448}, 384),
        ({"image_size": 128}, 128),
        ({"augmentation": "none"}, 224),
        ({"preset": "documented"}, 224),
        ({"weights": "random"}, 224),
        ({"model": "vit_base"}, 224),
        ({"tune": "upper"}, 224),
    ],
)
def test_training_on_crops_of_pretrained_networks_takes_a_smaller_square(
    settings: TrainSettings, train_size: int
) -> None:
    assert decide(situation(800, TUNED_WHOLE), settings)["train_size"] == train_size
