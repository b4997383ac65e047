"""The catalogue: its facts against the guides and other people's tables, and docs/models.md against the catalogue.

usage: python tests/test_catalog.py        (writes the tables of docs/models.md)
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from foldertune.errors import SettingsError
from foldertune.models.advice import ADVICE
from foldertune.models.architecture import RESNETS, SHAPES
from foldertune.models.catalog import ModelFacts, list_models, model_facts
from foldertune.models.published import PUBLISHED, WeightsFacts
from foldertune.models.weights import resolve_weights

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
ALL_WEIGHTS = [weights for facts in list_models() for weights in facts.weights]
# A second copy of what must never change by accident: a wrong hash would refuse everybody's download.
SHA256 = {
    "resnet18.tv_in1k": "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
    "resnet18.a1_in1k": "80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
    "resnet34.tv_in1k": None,
    "resnet50.tv_in1k": "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
    "resnet50.a1_in1k": "773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
    "resnet50.tv2_in1k": None,
    "resnet101.tv_in1k": None,
    "resnet101.a1_in1k": "1ba5b660e7c175b3c27c557fc7dc8b2815be830c516815b0155f61b403f27380",
    "resnet101.a1h_in1k": "1a076c0384295e7d3704f201c5711ff245507db934230bab72ff3014a95f90fe",
    "resnet152.tv_in1k": None,
    "vit_base": None,
    "vit_large": None,
}


# Facts


def test_list_models_has_seven_networks_smallest_of_each_family_first() -> None:
    listed = list_models()
    assert [facts.name for facts in listed] == [*(f"resnet{depth}" for depth in RESNETS), "vit_base", "vit_large"]
    for family in ("resnet", "vit"):
        sizes = [facts.parameters for facts in listed if facts.family == family]
        assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("name", "title", "parameters_m", "multiply_adds_g"),
    [  # as the papers, torchvision and timm round them
        ("resnet18", "ResNet-18", 11.69, 1.81),
        ("resnet34", "ResNet-34", 21.80, 3.66),
        ("resnet50", "ResNet-50", 25.56, 4.09),
        ("resnet101", "ResNet-101", 44.55, 7.80),
        ("resnet152", "ResNet-152", 60.19, 11.51),
        ("vit_base", "ViT-Base/16", 86.57, 17.56),
        ("vit_large", "ViT-Large/16", 304.33, 61.55),
    ],
)
def test_model_facts_are_the_published_ones(name: str, title: str, parameters_m: float, multiply_adds_g: float) -> None:
    facts = model_facts(name)
    assert (facts.name, facts.title, facts.input_px) == (name, title, 224)
    assert round(facts.parameters / 1e6, 2) == parameters_m
    assert round(facts.multiply_adds / 1e9, 2) == multiply_adds_g
    assert facts.size_mb == round(facts.parameters * 4 / 1e6, 1)
    assert len(facts.stages) == len(facts.channels) == 4


def test_model_facts_of_resnet50_are_those_of_the_guides() -> None:
    facts = model_facts("resnet50")
    assert (facts.depth, facts.stages) == (50, (3, 4, 6, 3))
    assert (facts.channels, facts.feature_size) == ((256, 512, 1024, 2048), 2048)
    assert facts.parameters == 25_557_032
    assert facts.layers == (
        "50 with weights: 1 stem convolution, 48 convolutions in 16 blocks of 3, 1 fully connected; "
        "the 4 projections on shortcuts are not counted"
    )
    assert "1512.03385" in facts.paper


@pytest.mark.parametrize("depth", RESNETS)
def test_model_facts_of_a_resnet_add_up_to_its_depth(depth: int) -> None:
    facts = model_facts(f"resnet{depth}")
    numbers = [int(number) for number in re.findall(r"\d+", facts.layers)]
    total, stem, convolutions, blocks, per_block, connected, _ = numbers
    assert total == depth == stem + convolutions + connected
    assert convolutions == blocks * per_block
    assert blocks == sum(facts.stages)


@pytest.mark.parametrize(
    ("name", "signs"),
    [
        ("resnet18", ("under 1,000", "speed", "simple", "limited resources", "rapid experiments")),
        ("resnet50", ("1,000 to 10,000", "500 to 5,000", "accuracy and speed", "stable", "default")),
        ("resnet101", ("over 10,000", "fine-grained", "twice the training time")),
        ("vit_base", ("over 5,000", "accuracy", "8 GB", "global context")),
        ("vit_large", ("very large sets",)),
    ],
)
def test_model_facts_say_when_to_take_which(name: str, signs: tuple[str, ...]) -> None:
    said = "; ".join(model_facts(name).take_when)
    assert all(sign in said for sign in signs)


def test_tables_by_network_cover_the_same_networks() -> None:
    assert list(SHAPES) == list(ADVICE) == list(PUBLISHED)
    assert all(facts.strengths and facts.take_when and facts.weights for facts in list_models())


@pytest.mark.parametrize("name", ["resnet5", "", "RESNET50", "os.system"])
def test_model_facts_of_an_unknown_name_lists_the_known(name: str) -> None:
    with pytest.raises(SettingsError, match="Accepted: resnet18, resnet34, resnet50"):
        model_facts(name)


def test_catalogue_and_weights_do_not_import_torch() -> None:
    program = (
        "import sys; from foldertune.models.catalog import list_models; from foldertune.models import weights; "
        "list_models(); weights.resolve_weights('random', 'vit_base'); "
        "print([name for name in ('torch', 'numpy', 'safetensors', 'huggingface_hub', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# Weights


def test_list_models_has_the_hashes_that_are_known() -> None:
    assert {weights.tag: weights.sha256 for weights in ALL_WEIGHTS} == SHA256


def test_list_models_names_each_tag_once_and_no_network() -> None:
    tags = [weights.tag for weights in ALL_WEIGHTS]
    assert len(tags) == len(set(tags))
    assert not {"imagenet", "random"} & set(tags)


@pytest.mark.parametrize("name", SHAPES)
def test_model_facts_state_a_licence_that_allows_use(name: str) -> None:
    for weights in model_facts(name).weights:
        assert weights.licence in ("Apache-2.0", "BSD-3-Clause")
        assert weights.source == f"https://huggingface.co/{weights.repository}"
        assert weights.size_mb == pytest.approx(model_facts(name).size_mb, rel=0.01)
        assert weights.preprocess.image_size == model_facts(name).input_px
        assert resolve_weights("random", name).preprocess == model_facts(name).weights[0].preprocess


@pytest.mark.parametrize("depth", RESNETS)
def test_model_facts_of_resnets_begin_with_plainly_trained_weights(depth: int) -> None:
    assert model_facts(f"resnet{depth}").weights[0].tag == f"resnet{depth}.tv_in1k"


def test_list_models_agrees_with_the_sheet_of_known_weights(material: Callable[[str], Path]) -> None:
    by_tag = {weights.tag: weights for weights in ALL_WEIGHTS}
    lines = material("WEIGHTS.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "timm/" in line]
    assert len(rows) == 10
    for tag, repository, licence, _, sha256, preprocessing in rows:
        weights = by_tag[tag.split()[0]]
        assert (weights.repository, weights.licence) == (repository.split()[0], licence)
        assert (weights.sha256 or "unknown") == sha256
        if "crop " in preprocessing:
            assert f"crop {weights.preprocess.crop_fraction}" in preprocessing


@pytest.mark.parametrize("weights", ALL_WEIGHTS, ids=[weights.tag for weights in ALL_WEIGHTS])
def test_list_models_states_the_preprocessing_that_timm_states_live(weights: WeightsFacts) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    theirs = timm.models.get_pretrained_cfg(weights.repository.removeprefix("timm/"))
    ours = weights.preprocess
    assert (theirs.hf_hub_id, theirs.license) == (weights.repository, weights.licence.lower())
    assert (theirs.mean, theirs.std) == (ours.mean, ours.std)
    assert (theirs.interpolation, theirs.crop_mode) == (ours.interpolation, "center")
    trained = (theirs.input_size, theirs.crop_pct)
    tested = (theirs.test_input_size, theirs.test_crop_pct)
    assert ((3, ours.image_size, ours.image_size), ours.crop_fraction) in (trained, tested)


# The page


def networks_table(listed: tuple[ModelFacts, ...]) -> str:
    rows = [
        f"| `{facts.name}` | {facts.title} | {facts.depth} | {', '.join(map(str, facts.stages))} "
        f"| {facts.parameters:,} | {facts.multiply_adds / 1e9:.2f} G | {facts.size_mb:,.0f} MB | {facts.feature_size:,} "
        f"| {'; '.join(facts.strengths)} | {'; '.join(facts.take_when)} |"
        for facts in listed
    ]
    head = "| name | network | layers or blocks | blocks per stage | parameters | multiply-adds | size | features "
    return "\n".join([f"{head}| strengths | take when |", "|---" * 10 + "|", *rows])


def weights_table(listed: tuple[ModelFacts, ...]) -> str:
    rows = [
        f"| `{facts.name}` | `{weights.tag}` | [{weights.repository}]({weights.source}) | {weights.licence} "
        f"| {weights.size_mb:,.0f} MB | {weights.preprocess.interpolation}, crop {weights.preprocess.crop_fraction} "
        f"| {weights.note} | {f'`{weights.sha256}`' if weights.sha256 else 'not known'} |"
        for facts in listed
        for weights in facts.weights
    ]
    head = "| network | tag | page | licence | size | preprocessing | trained | sha256 |"
    return "\n".join([head, "|---" * 8 + "|", *rows])


def with_tables(text: str) -> str:
    """The page with both tables as the catalogue has them now."""
    for name, table in (("catalogue", networks_table(list_models())), ("weights", weights_table(list_models()))):
        begin, end = f"<!-- {name}: written by", f"<!-- end of the {name} -->"
        start = text.index("\n", text.index(begin)) + 1
        text = f"{text[:start]}{table}\n{text[text.index(end) :]}"
    return text


def test_page_has_the_catalogue_as_it_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_tables(text), "run: python tests/test_catalog.py"


def test_page_names_every_setting_and_place() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in (
        "HF_HOME",
        "HF_ENDPOINT",
        "HF_HUB_OFFLINE",
        "HF_TOKEN",
        "FOLDERTUNE_CACHE",
        "sha256.json",
        "exit code 4",
    ):
        assert name in text
    for choice in ("imagenet", "TAG", "PATH", "random"):
        assert f"--weights {choice}" in text


def test_page_states_the_default_place_on_this_system(monkeypatch: pytest.MonkeyPatch) -> None:
    from foldertune.models.hub import weights_folder

    for variable in ("FOLDERTUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    place = weights_folder().parent
    shown = str(place).replace(str(Path.home()), "~") if sys.platform != "win32" else r"%LOCALAPPDATA%\foldertune\cache"
    assert f"`{shown}`" in PAGE.read_text(encoding="utf-8")


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
