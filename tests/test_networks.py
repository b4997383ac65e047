"""The networks against other people's: logits, names, parameters, multiply-adds; and that they can be cut anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ramps import fill_with_ramps, ramp_pictures, sawtooth
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from foldertune.errors import SettingsError
from foldertune.models import build
from foldertune.models.architecture import RESNETS, SHAPES, ViTShape, cost_of
from foldertune.models.catalog import model_facts
from foldertune.models.network import Network
from foldertune.models.vit import ViT

GOLDEN = json.loads((Path(__file__).parent / "golden" / "networks.json").read_text(encoding="utf-8"))
VITS = {
    "vit_base_4_blocks_160_px": ViTShape("vit_base", num_blocks=4, width=768, num_heads=12),
    "vit_large_4_blocks": ViTShape("vit_large", num_blocks=4, width=1024, num_heads=16),
}
SMALL_VIT = ViTShape("vit_base", num_blocks=8, width=48, num_heads=4, image_px=64)
SLOW = ("vit_large",)


def of_case(case: str) -> Network:
    """The network that a golden case is about, without values: on the meta device nothing is drawn or stored."""
    with torch.device("meta"):
        if case in VITS:
            return ViT(VITS[case], num_classes=GOLDEN["num_classes"])
        return build(case.removesuffix("_v1"), num_classes=GOLDEN["num_classes"], v1=case.endswith("_v1"))


def digest(network: nn.Module) -> str:
    """sha256 over the sorted lines "name shape" of every tensor, as the maker of the golden values takes it."""
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in network.state_dict().items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def small(name: str) -> Network:
    """A network with ramps for weights that is quick to run: "resnet18", "resnet50" or "vit" with narrow blocks."""
    network = (ViT(SMALL_VIT, num_classes=5) if name == "vit" else build(name, num_classes=5)).eval()
    fill_with_ramps(network)
    return network


@pytest.fixture(params=["resnet18", "resnet50", "vit"])
def network(request: pytest.FixtureRequest) -> Network:
    return small(request.param)


@pytest.fixture(autouse=True)
def _without_gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


# Against the reference, stored and live


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in GOLDEN["cases"]]
)
def test_forward_with_ramps_equals_timm(case: str) -> None:
    expected = torch.tensor(GOLDEN["cases"][case]["logits"])
    network = of_case(case).to_empty(device="cpu").eval()
    fill_with_ramps(network)
    logits = network(ramp_pictures(GOLDEN["cases"][case]["image_px"], num_pictures=len(expected)))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_state_dict_has_the_names_and_shapes_of_timm(case: str) -> None:
    assert digest(of_case(case)) == GOLDEN["cases"][case]["tensors"]


def check_live(ours: Network, theirs: nn.Module, image_px: int) -> None:
    """Same names and shapes; the library's own random weights in both; same logits, from the same features."""
    theirs.eval()
    ours.eval().load_state_dict(theirs.state_dict(), strict=True)
    pictures = ramp_pictures(image_px)
    torch.testing.assert_close(ours(pictures), theirs(pictures), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [f"resnet{depth}" for depth in RESNETS])
def test_forward_with_random_weights_equals_torchvision_live(name: str) -> None:
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed; the stored values stand in")
    torch.manual_seed(1)
    check_live(build(name, num_classes=8), getattr(torchvision.models, name)(num_classes=8), image_px=64)


@pytest.mark.parametrize("name", [*(f"resnet{depth}" for depth in RESNETS), "vit_base"])
def test_forward_with_random_weights_equals_timm_live(name: str) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed; the stored values stand in")
    torch.manual_seed(2)
    theirs = timm.create_model(model_facts(name).timm_name, num_classes=8)
    check_live(build(name, num_classes=8), theirs, image_px=224 if name == "vit_base" else 64)


def test_run_stages_equals_timm_features_live() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed; the stored values stand in")
    theirs = timm.create_model("resnet50", features_only=True).eval()
    fill_with_ramps(theirs)
    ours = build("resnet50", num_classes=5).eval()
    fill_with_ramps(ours)
    pictures = ramp_pictures(64)
    for output, expected in zip(ours.stage_outputs(pictures)[1:], theirs(pictures)[1:], strict=True):
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-4)


# Parameters and multiply-adds: the catalogue's sums against the real network, counted by torch


def counted_multiply_adds(network: nn.Module, image_px: int) -> int:
    """Multiply-adds of one picture as torch counts them; torch says 2 for each."""
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, image_px, image_px, device="meta"))
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("num_classes", [1000, 7])
def test_cost_of_each_network_equals_the_count_by_torch(name: str, num_classes: int) -> None:
    image_px = 224 if num_classes == 1000 else 160
    with torch.device("meta"):
        network = build(name, num_classes=num_classes).eval()
        cost = cost_of(SHAPES[name], image_px=image_px, num_classes=num_classes)
        assert cost.multiply_adds == counted_multiply_adds(network, image_px)
    assert cost.parameters == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("image_px", [33, 65, 97, 225])
def test_cost_of_odd_sizes_equals_the_count_by_torch(image_px: int) -> None:
    for depth in (18, 50):
        with torch.device("meta"):
            network = build(f"resnet{depth}", num_classes=10).eval()
            counted = counted_multiply_adds(network, image_px)
        assert cost_of(RESNETS[depth], image_px=image_px, num_classes=10).multiply_adds == counted


def test_resnet50_has_the_published_parameters_and_multiply_adds() -> None:
    facts = model_facts("resnet50")
    assert facts.parameters == 25_557_032
    assert round(facts.multiply_adds / 1e9, 2) == 4.09
    with torch.device("meta"):
        assert sum(value.numel() for value in build("resnet50", num_classes=1000).parameters()) == 25_557_032


@pytest.mark.parametrize("depth", RESNETS)
def test_build_of_each_depth_has_that_many_layers_with_weights(depth: int) -> None:
    with torch.device("meta"):
        network = build(f"resnet{depth}", num_classes=2)
    kinds = (nn.Conv2d, nn.Linear)
    layers = [
        name for name, module in network.named_modules() if isinstance(module, kinds) and "downsample" not in name
    ]
    assert len(layers) == depth


# The v1 form


def strides(network: nn.Module) -> dict[str, int]:
    return {
        name: module.stride[0]
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and name.startswith("layer") and "downsample" not in name
    }


def test_build_v1_moves_the_stride_to_the_first_convolution() -> None:
    with torch.device("meta"):
        ours, paper = strides(build("resnet50", num_classes=2)), strides(build("resnet50", num_classes=2, v1=True))
    assert {name for name, stride in ours.items() if stride == 2} == {f"layer{stage}.0.conv2" for stage in (2, 3, 4)}
    assert {name for name, stride in paper.items() if stride == 2} == {f"layer{stage}.0.conv1" for stage in (2, 3, 4)}


def test_build_v1_computes_less_and_holds_the_same_tensors() -> None:
    with torch.device("meta"):
        ours, paper = (build("resnet50", num_classes=1000, v1=v1).eval() for v1 in (False, True))
        counted = counted_multiply_adds(paper, 224)
    assert digest(ours) == digest(paper)
    assert 3.8e9 < counted < 3.9e9  # "3.8 x 10^9" in table 1 of the paper, which cuts what follows


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "vit_base"])
def test_build_v1_without_bottleneck_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"no v1 form.*resnet50, resnet101 and resnet152"):
        build(name, num_classes=2, v1=True)


@pytest.mark.parametrize("num_classes", [0, -1])
def test_build_without_classes_is_refused(num_classes: int) -> None:
    with pytest.raises(SettingsError, match="Accepted: 1 and more"):
        build("resnet18", num_classes=num_classes)


@pytest.mark.parametrize("name", ["resnet51", "ResNet50", "vit-base", "os.system", ""])
def test_build_of_an_unknown_name_lists_the_known(name: str) -> None:
    with pytest.raises(SettingsError, match="resnet18, resnet34, resnet50, resnet101, resnet152, vit_base, vit_large"):
        build(name, num_classes=2)


def test_build_of_a_near_name_suggests_it() -> None:
    with pytest.raises(SettingsError, match=r"Did you mean resnet50"):
        build("resnet-50", num_classes=2)


# Cutting between stages


def test_run_stages_cut_anywhere_gives_the_same_bits(network: Network) -> None:
    pictures = ramp_pictures(64)
    whole, logits = network.run_stages(pictures), network(pictures)
    for cut in range(network.num_stages):
        cached = network.run_stages(pictures, last=cut)
        before = cached.clone()
        rest = network.run_stages(cached, first=cut + 1)
        assert torch.equal(rest, whole)
        assert torch.equal(cached, before), f"stages after {cut} wrote into their input"
        assert torch.equal(network.classify(network.pool(rest)), logits)


def test_run_stages_with_nothing_to_run_returns_its_input(network: Network) -> None:
    x = torch.ones(1)
    assert network.run_stages(x, first=network.num_stages) is x
    assert network.run_stages(x, first=0, last=-1) is x


def test_stage_outputs_ends_where_forward_begins_to_pool(network: Network) -> None:
    pictures = ramp_pictures(64)
    outputs = network.stage_outputs(pictures)
    assert len(outputs) == network.num_stages
    for stage, output in enumerate(outputs):
        assert torch.equal(output, network.run_stages(pictures, last=stage))
    features = network.pool(outputs[-1])
    assert features.shape == (2, network.feature_size)
    assert torch.equal(network.classify(features), network(pictures))
    assert network(pictures).shape == (2, network.num_classes)


@pytest.mark.parametrize("name", [f"resnet{depth}" for depth in RESNETS])
def test_stage_outputs_of_a_resnet_have_the_catalogued_channels(name: str) -> None:
    with torch.device("meta"):
        outputs = build(name, num_classes=2).stage_outputs(torch.empty(3, 3, 224, 224))
    sides = (56, 56, 28, 14, 7)
    channels = (64, *model_facts(name).channels)
    expected = [(3, width, side, side) for width, side in zip(channels, sides, strict=True)]
    assert [tuple(output.shape) for output in outputs] == expected


@pytest.mark.parametrize("name", ["vit_base", "vit_large"])
def test_stage_outputs_of_a_vit_are_tokens_of_the_catalogued_width(name: str) -> None:
    with torch.device("meta"):
        outputs = build(name, num_classes=2).stage_outputs(torch.empty(3, 3, 224, 224))
    assert [tuple(output.shape) for output in outputs] == [(3, 197, model_facts(name).feature_size)] * 5


@pytest.mark.parametrize("name", SHAPES)
def test_stage_parameters_hold_each_parameter_once(name: str) -> None:
    with torch.device("meta"):
        network = build(name, num_classes=2)
    names = [each for stage in range(network.num_stages + 1) for each, _ in network.stage_parameters(stage)]
    assert sorted(names) == sorted(each for each, _ in network.named_parameters())
    head = [each for each, _ in network.stage_parameters(network.num_stages)]
    assert head == [f"{network.head_name}.weight", f"{network.head_name}.bias"]
    body = tuple(
        len({each.split(".")[1] for each, _ in network.stage_parameters(stage)} - {"weight", "bias"})
        for stage in range(1, network.num_stages)
    )
    assert body == model_facts(name).stages


def test_stage_of_each_parameter_is_where_its_gradient_begins(network: Network) -> None:
    outputs = network.stage_outputs(ramp_pictures(64, num_pictures=1))
    for stage, output in enumerate(outputs):
        network.zero_grad(set_to_none=True)
        output.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        touched = {name for name, value in network.named_parameters() if value.grad is not None}
        # A ViT's final norm acts after the last stage's output, and learns with it.
        expected = {
            name for name, _ in network.named_parameters() if network.stage_of(name) <= stage and name[:5] != "norm."
        }
        assert touched == expected
    network.zero_grad(set_to_none=True)


def test_stage_of_buffers_is_that_of_their_layer() -> None:
    network = small("resnet18")
    stages = {name: network.stage_of(name) for name, _ in network.named_buffers()}
    assert stages["bn1.running_mean"] == 0
    assert stages["layer3.1.bn2.running_var"] == 3
    assert network.stage_of("layer4") == 4
    assert network.stage_of("fc") == network.num_stages
    assert small("vit").stage_of("norm.weight") == 4  # it learns with the last blocks


# Properties


@settings(max_examples=20)
@given(image_px=st.integers(32, 120), num_pictures=st.integers(1, 3))
def test_forward_of_any_size_answers_each_picture_alone(image_px: int, num_pictures: int) -> None:
    pictures = ramp_pictures(image_px, num_pictures=num_pictures)
    with torch.inference_mode():
        together = small("resnet18")(pictures)
        alone = torch.cat([small("resnet18")(picture[None]) for picture in pictures])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_forward_of_a_vit_takes_pictures_of_other_sizes() -> None:
    for height, width in ((32, 32), (96, 96), (48, 80)):
        assert small("vit")(torch.zeros(2, 3, height, width)).shape == (2, 5)


@pytest.mark.parametrize(("height", "width"), [(63, 64), (64, 72), (8, 8)])
def test_forward_of_a_vit_with_a_size_between_patches_is_refused(height: int, width: int) -> None:
    with pytest.raises(SettingsError, match=f"{width}x{height} pixels.*multiples of 16"):
        small("vit")(torch.zeros(1, 3, height, width))


def test_forward_of_a_vit_shifted_by_one_patch_changes_its_answer() -> None:
    """Without positions, rolling the patches would permute tokens and leave the class token as it was."""
    pictures = ramp_pictures(64)
    rolled = pictures.roll(16, dims=3)
    assert not torch.allclose(small("vit")(pictures), small("vit")(rolled), atol=1e-3)


@pytest.mark.parametrize(("name", "num_channels"), [("resnet18", 64), ("resnet50", 256)])
def test_build_begins_with_blocks_that_are_the_identity(name: str, num_channels: int) -> None:
    block = build(name, num_classes=2).get_submodule("layer1.1").eval()
    x = sawtooth("x", (1, num_channels, 8, 8)).relu()
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_build_with_the_same_seed_gives_the_same_bits(name: str) -> None:
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(build(name, num_classes=2).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["fc.weight"], states[2]["fc.weight"])
