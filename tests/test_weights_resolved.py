"""What --weights means: a published name, a file, a folder, or random; anything else is an error with the next step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from foldertune.errors import MissingError, SettingsError
from foldertune.models import hub
from foldertune.models.config import config_for
from foldertune.models.published import A1, PUBLISHED, WeightsFacts
from foldertune.models.weights import resolve_weights
from foldertune.preprocess import Preprocess


def file_of(path: Path) -> Path:
    """Some sound safetensors file: what is in it matters only when it is loaded."""
    save_file({"x": torch.zeros(2)}, path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.safetensors"


def test_resolve_weights_of_a_file_alone_says_what_it_assumed(path: Path) -> None:
    file_of(path)
    resolved = resolve_weights(str(path), "resnet50")
    (sentence,) = resolved.assumed
    assert "config.json is not there" in sentence
    assert "bilinear resizing, shorter side 256, crop 224, ImageNet mean and std" in sentence
    assert resolved.preprocess == Preprocess()
    assert (resolved.preprocess.resized_px, resolved.preprocess.image_size) == (256, 224)
    assert (resolved.source, resolved.path, resolved.sha256) == (str(path), path, hub.sha256_of(path))


@pytest.mark.parametrize("named", ["file", "folder"])
def test_resolve_weights_with_a_config_beside_takes_its_preprocessing(named: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    file_of(path)
    preprocess = Preprocess(image_size=160, interpolation="bicubic", mean=(0.5, 0.5, 0.5))
    config = config_for("resnet34", classes=("a", "b"), preprocess=preprocess)
    (tmp_path / "config.json").write_text(json.dumps(config))
    resolved = resolve_weights(str(path if named == "file" else tmp_path), "resnet34")
    assert resolved.preprocess == preprocess
    assert resolved.path == path
    assert resolved.assumed == ()
    with pytest.raises(SettingsError, match=r"of a resnet34.*the model is resnet50\. Pass --model resnet34"):
        resolve_weights(str(path), "resnet50")


def test_resolve_weights_with_a_config_that_says_no_preprocessing_says_what_it_assumed(path: Path) -> None:
    file_of(path)
    path.with_name("config.json").write_text('{"architecture": "resnet18"}')
    (sentence,) = resolve_weights(str(path), "resnet18").assumed
    assert "config.json says nothing about preprocessing" in sentence


def test_resolve_weights_with_a_hostile_config_refuses_it(path: Path) -> None:
    file_of(path)
    path.with_name("config.json").write_text('{"arch": "os.system", "_target_": "os.system"}')
    with pytest.raises(SettingsError, match="unknown architecture"):
        resolve_weights(str(path), "resnet18")


@pytest.mark.parametrize("model", PUBLISHED)
def test_resolve_weights_random_is_what_it_says(model: str) -> None:
    resolved = resolve_weights("random", model)
    assert (resolved.source, resolved.path, resolved.sha256, resolved.licence) == ("random", None, None, "")
    assert resolved.preprocess == PUBLISHED[model][0].preprocess


@pytest.mark.parametrize(
    ("weights", "kind", "says"),
    [
        ("imagenett", SettingsError, "Did you mean imagenet?"),
        ("Random", SettingsError, "Did you mean random?"),
        ("", SettingsError, "Accepted: imagenet"),
        ("resnet18.tv_in1k", SettingsError, "are of a resnet18, and the model is resnet50. Pass --model resnet18"),
        ("swag", SettingsError, "Accepted: imagenet, resnet50.tv_in1k"),
        ("nowhere.safetensors", MissingError, "nowhere.safetensors does not exist"),
        ("nowhere.pth", MissingError, "nowhere.pth does not exist"),
        ("folder/nowhere", MissingError, "nowhere does not exist"),
        ("~nobody-of-this-name/x.safetensors", SettingsError, "no usable path"),
        ("x" * 5000, SettingsError, "no usable path"),
        ("x\0y.safetensors", SettingsError, r"no weights 'x\x00y.safetensors'"),
        (".", MissingError, "model.safetensors does not exist"),
    ],
)
def test_resolve_weights_that_are_not_there_is_an_error_never_random(
    weights: str, kind: type[Exception], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as raised:
        resolve_weights(weights, "resnet50")
    assert says in str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("named", ["tag", "repository", "name on the hub"])
def test_resolve_weights_of_a_published_name_takes_its_facts(
    named: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def fetch(facts: WeightsFacts, *, download: bool) -> hub.Fetched:
        fetched.append(facts.tag)
        return hub.Fetched(path, "f" * 64, ("said loudly",))

    monkeypatch.setattr(hub, "fetch", fetch)
    weights = {"tag": "resnet50.a1_in1k", "repository": "timm/resnet50.a1_in1k"}.get(named, "resnet50.a1_in1k")
    resolved = resolve_weights(weights, "resnet50")
    assert (resolved.source, resolved.path, resolved.preprocess) == ("resnet50.a1_in1k", path, A1)
    assert (resolved.sha256, resolved.assumed, resolved.licence) == ("f" * 64, ("said loudly",), "Apache-2.0")
    resolve_weights("imagenet", "resnet50")
    resolve_weights("vit_base_patch16_224.augreg2_in21k_ft_in1k", "vit_base")
    assert fetched == ["resnet50.a1_in1k", "resnet50.tv_in1k", "vit_base"]
