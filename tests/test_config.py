"""config.json: what is written comes back, timm opens it, and a hostile one is refused without importing anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldertune.errors import FoldertuneError, SettingsError
from foldertune.models import build
from foldertune.models.architecture import SHAPES
from foldertune.models.config import MAX_BYTES, ModelConfig, config_for, read_config
from foldertune.models.weights import write_weights
from foldertune.preprocess import Preprocess

SOUND: dict[str, Any] = config_for("resnet50", classes=("mite", "rust"), preprocess=Preprocess())


def written(folder: Path, content: object) -> Path:
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def refusal(folder: Path, content: object) -> str:
    path = written(folder, content)
    with pytest.raises(SettingsError) as raised:
        read_config(path)
    message = str(raised.value)
    assert str(path) in message
    assert len(message) < 1000
    return message


# What is written comes back


@pytest.mark.parametrize("model", SHAPES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_read_config_of_a_written_one_gives_it_back(model: str, interpolation: Any, tmp_path: Path) -> None:
    preprocess = Preprocess(192, 0.9, "crop", interpolation, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    classes = ("Ärger", "b", "花")
    config = read_config(written(tmp_path, config_for(model, classes=classes, preprocess=preprocess)))
    assert config == ModelConfig(model, 3, classes, preprocess)


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
def test_read_config_of_a_fit_without_crop_gives_the_whole_picture(fit: Any, tmp_path: Path) -> None:
    config = config_for("resnet18", classes=("a",), preprocess=Preprocess(fit=fit, crop_fraction=0.8))
    assert read_config(written(tmp_path, config)).preprocess == Preprocess(fit=fit, crop_fraction=1.0)


def test_read_config_of_the_hub_gives_timm_s_preprocessing(tmp_path: Path) -> None:
    """The fields as timm/resnet50.a1_in1k states them; unknown ones are left alone."""
    details = {
        "tag": "a1_in1k",
        "custom_load": False,
        "input_size": [3, 224, 224],
        "test_input_size": [3, 288, 288],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "num_classes": 1000,
    }
    content = {"architecture": "resnet50", "num_classes": 1000, "num_features": 2048, "pretrained_cfg": details}
    expected = ModelConfig("resnet50", 1000, (), Preprocess(224, 0.95, "crop", "bicubic"))
    assert read_config(written(tmp_path, content)) == expected
    assert read_config(written(tmp_path, {"architecture": "resnet50", **details})) == expected


@pytest.mark.parametrize("missing", ["mean", "std", "pretrained_cfg"])
def test_read_config_without_preprocessing_gives_none(missing: str, tmp_path: Path) -> None:
    nested = {name: value for name, value in SOUND["pretrained_cfg"].items() if name != missing}
    content = {name: value for name, value in {**SOUND, "pretrained_cfg": nested}.items() if name != missing}
    assert read_config(written(tmp_path, content)).preprocess is None


@pytest.mark.parametrize(("model", "image_px"), [("resnet18", 96), ("vit_base", 224), ("vit_base", 160)])
def test_config_for_a_saved_network_is_opened_by_timm_live(model: str, image_px: int, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    import torch
    from ramps import fill_with_ramps, ramp_pictures

    preprocess = Preprocess(image_size=image_px, crop_fraction=0.9, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    network = build(model, num_classes=3).eval()
    fill_with_ramps(network)
    write_weights(network, tmp_path / "model.safetensors")
    written(tmp_path, config_for(model, classes=("a", "b", "c"), preprocess=preprocess))
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    resolved = timm.data.resolve_model_data_config(theirs)
    assert tuple(resolved["input_size"]) == (3, image_px, image_px)
    assert {*resolved["mean"], *resolved["std"]} == {0.5}
    assert resolved["crop_pct"] == 0.9
    assert theirs.pretrained_cfg["label_names"] == ["a", "b", "c"]
    with torch.inference_mode():
        pictures = ramp_pictures(image_px)
        torch.testing.assert_close(network(pictures), theirs(pictures), rtol=0, atol=1e-4)


# Attacks


@pytest.mark.parametrize(
    "content",
    [
        {"arch": "os.system"},
        {"architecture": "os.system"},
        {"architecture": "antigravity.fly"},
        {"architecture": "antigravity", "module": "antigravity"},
        {"_target_": "antigravity.fly", "_args_": ["x"]},
        {"auto_map": {"AutoModel": "antigravity--fly"}, "architectures": ["fly"]},
        {"_instantiator": "antigravity.fly"},
        {"class_name": "Lambda", "config": {"function": ["4wEAAAA=", None, None], "function_type": "lambda"}},
        {"architecture": "hf-hub:someone/resnet50"},
        {"architecture": "local-dir:/tmp"},
        {"architecture": "RESNET50"},
        {"architecture": ""},
        {"architecture": None},
        {"architecture": ["resnet50"]},
        {"architecture": {"_target_": "antigravity.fly"}},
        {"architecture": 50},
        {"architecture": "\x1b[31mred\n" * 1000},
        {},
    ],
)
def test_read_config_of_an_unknown_architecture_refuses_it(content: object, tmp_path: Path) -> None:
    message = refusal(tmp_path, content)
    assert "unknown architecture" in message
    assert "Accepted: resnet18, resnet34, resnet50" in message
    assert message.isprintable()
    assert "antigravity" not in sys.modules


def test_read_config_with_code_beside_a_known_architecture_imports_nothing(tmp_path: Path) -> None:
    hostile = {"_target_": "antigravity.fly", "module": "antigravity", "auto_map": {"AutoModel": "antigravity--fly"}}
    nested = {**SOUND["pretrained_cfg"], **hostile, "file": "/etc/passwd", "url": "http://127.0.0.1:1/"}
    assert read_config(written(tmp_path, {**SOUND, **hostile, "pretrained_cfg": nested})) == read_config(
        written(tmp_path, SOUND)
    )
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("not json", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"num_classes": ' + "9" * 5000 + "}", "cannot be read as JSON"),
        ([], "holds no table"),
        ("null", "holds no table"),
        (" " * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_read_config_of_no_table_says_so(content: object, says: str, tmp_path: Path) -> None:
    assert says in refusal(tmp_path, content)


def test_read_config_of_other_bytes_says_so(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read as JSON"):
        read_config(path)
    with pytest.raises(SettingsError, match="cannot be read as JSON"):
        read_config(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_classes": 3}, "contradicts itself: 3 classes and 2 label names"),
        ({"num_classes": 0}, "no whole number from 1"),
        ({"num_classes": -1}, "no whole number from 1"),
        ({"num_classes": 2.0}, "no whole number from 1"),
        ({"num_classes": True}, "no whole number from 1"),
        ({"num_classes": "2"}, "no whole number from 1"),
        ({"num_classes": 2**31}, "no whole number from 1"),
        ({"label_names": 5}, "no list of names"),
        ({"label_names": "ab"}, "no list of names"),
        ({"label_names": {"0": "a", "1": "b"}}, "no list of names"),
        ({"label_names": ["a", 7]}, "no list of names"),
        ({"label_names": ["a"]}, "contradicts itself: 2 classes and 1 label names"),
    ],
)
def test_read_config_of_a_contradiction_names_it(changes: dict[str, object], says: str, tmp_path: Path) -> None:
    assert says in refusal(tmp_path, {**SOUND, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": [0.5, 0.5]},
        {"mean": [0.5] * 4},
        {"mean": 0.5},
        {"mean": "0.5"},
        {"mean": [float("nan")] * 3},
        {"mean": [None] * 3},
        {"mean": [10**400] * 3},
        {"std": [0.0] * 3},
        {"std": [-1.0] * 3},
        {"std": [float("inf")] * 3},
        {"crop_pct": 1.5},
        {"crop_pct": -0.5},
        {"crop_pct": "wide"},
        {"crop_pct": float("nan")},
        {"crop_pct": 10**400},
        {"crop_mode": "border_and_more"},
        {"crop_mode": ["center"]},
        {"interpolation": "lanczos"},
        {"interpolation": ["bilinear"]},
        {"input_size": []},
        {"input_size": 224},
        {"input_size": [3, 224, float("inf")]},
        {"input_size": [3, 224, 0]},
        {"input_size": [3, 224, 10**9]},
        {"input_size": {"side": 224}},
    ],
)
def test_read_config_of_impossible_preprocessing_refuses_it(changes: dict[str, object], tmp_path: Path) -> None:
    message = refusal(tmp_path, {**SOUND, "pretrained_cfg": {**SOUND["pretrained_cfg"], **changes}})
    assert "preprocessing" in message
    assert "not understood" in message


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
FIELDS = st.sampled_from(["architecture", "num_classes", "label_names", "pretrained_cfg", "mean", "std"])
DETAILS = st.sampled_from(["input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std", "num_classes"])


@settings(max_examples=300)
@given(outer=st.dictionaries(FIELDS, JSON, max_size=2), inner=st.dictionaries(DETAILS, JSON, max_size=3))
def test_read_config_of_any_values_answers_or_refuses(
    outer: dict[str, Any], inner: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "config_of_any_values.json"
    content = {**SOUND, "pretrained_cfg": {**SOUND["pretrained_cfg"], **inner}, **outer}
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        config = read_config(path)
    except FoldertuneError:
        return
    assert config.model in SHAPES
    assert len(config.label_names) in (0, config.num_classes)
    if config.preprocess is not None:
        assert 1 <= config.preprocess.image_size <= 4096
        assert len(config.preprocess.mean) == len(config.preprocess.std) == 3
