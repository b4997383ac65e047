"""A form as an ONNX graph, which OpenVINO and ONNX Runtime both read. Written node by node from the numbers, without torch.

Batch norms are folded into their convolutions in float64: w' = w * g / sqrt(v + e), b' = b - m * g / sqrt(v + e). Normalisation of
the pictures is the first node. Operators: ONNX operator set 17.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foldertune.engines.form import Form
from foldertune.models.architecture import LAYER_NORM_EPSILON, ResNetShape, ViTShape, shape_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPERATOR_SET, IR_VERSION = 17, 10  # both are read by ONNX Runtime from 1.18 and by OpenVINO from 2024.2 on
PICTURES = "pictures"  # name of the graph's input
BATCH_NORM_EPSILON = 1e-5  # torch's default, and that of all published ResNets
_NUM_STAGES = 5


def onnx_graph(form: Form) -> ModelProto:
    """The whole graph, weights inside. Its outputs have the names of the form's."""
    from onnx import TensorProto, helper

    shape = shape_of(form.model)
    graph = _Graph(form)
    x = graph.normalised()
    last = form.stage if form.outputs == ("activation",) else _NUM_STAGES - 1
    stages = _resnet_stages(graph, shape) if isinstance(shape, ResNetShape) else _vit_stages(graph, shape)
    for number, stage in enumerate(stages[: last + 1]):
        x = stage(x)
        if number == form.stage and "activation" in form.outputs:
            graph.node("Identity", [x], name="activation")
    if form.outputs != ("activation",):
        x = _pooled(graph, x, shape)
        if "logits" in form.outputs:
            graph.linear(x, "fc" if isinstance(shape, ResNetShape) else "head", name="logits")
    side = form.preprocess.image_size
    pictures = helper.make_tensor_value_info(PICTURES, TensorProto.UINT8, ["B", side, side, 3])
    rank = {"logits": ["B", "K"], "features": ["B", "D"]}
    inner = ["B", "C", "h", "w"] if isinstance(shape, ResNetShape) else ["B", "tokens", "D"]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, rank.get(name, inner)) for name in form.outputs]
    made = helper.make_graph(graph.nodes, form.model, [pictures], outputs, graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPERATOR_SET)], ir_version=IR_VERSION)


class _Graph:
    """Nodes and constants as they come. Every method adds some and returns the name of its result."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, operator: str, inputs: list[str], *, name: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def tensor(self, name: str) -> str:
        """A tensor of the form as it is."""
        return self.constant(name, self.form.tensors[name])

    def normalised(self) -> str:
        """(B, S, S, 3) uint8 → (B, 3, S, S) float32 about zero."""
        from onnx import TensorProto

        mean, std = (np.array(values, np.float32) for values in (self.form.preprocess.mean, self.form.preprocess.std))
        x = self.node("Cast", [PICTURES], name="numbers", to=TensorProto.FLOAT)
        x = self.node("Transpose", [x], name="channels_first", perm=[0, 3, 1, 2])
        x = self.node("Mul", [x, self.constant("scale", (1 / (255 * std))[:, None, None])], name="scaled")
        return self.node("Add", [x, self.constant("shift", (-mean / std)[:, None, None])], name="normalised")

    def convolution(self, x: str, conv: str, norm: str, *, stride: int = 1) -> str:
        """A convolution with the batch norm that follows it, as one."""
        tensors = self.form.tensors
        weight, mean = tensors[f"{conv}.weight"], tensors[f"{norm}.running_mean"].astype(np.float64)
        variance = tensors[f"{norm}.running_var"].astype(np.float64)
        gain = tensors[f"{norm}.weight"] / np.sqrt(variance + BATCH_NORM_EPSILON)
        folded = (weight * gain[:, None, None, None]).astype(np.float32)
        bias = (tensors[f"{norm}.bias"] - mean * gain).astype(np.float32)
        inputs = [x, self.constant(f"{conv}.weight", folded), self.constant(f"{conv}.bias", bias)]
        return self.node("Conv", inputs, name=conv, strides=[stride] * 2, pads=[weight.shape[2] // 2] * 4)

    def relu(self, x: str) -> str:
        return self.node("Relu", [x], name=f"{x}.relu")

    def linear(self, x: str, layer: str, *, name: str) -> str:
        """(..., in) → (..., out)."""
        weight = self.constant(f"{layer}.weight", self.form.tensors[f"{layer}.weight"].T)
        x = self.node("MatMul", [x, weight], name=f"{name}.product")
        return self.node("Add", [x, self.tensor(f"{layer}.bias")], name=name)

    def layer_norm(self, x: str, layer: str) -> str:
        inputs = [x, self.tensor(f"{layer}.weight"), self.tensor(f"{layer}.bias")]
        return self.node("LayerNormalization", inputs, name=layer, epsilon=LAYER_NORM_EPSILON, axis=-1)


Stage = Callable[[str], str]


def _pooled(graph: _Graph, x: str, shape: ResNetShape | ViTShape) -> str:
    if isinstance(shape, ResNetShape):  # (B, D, h, w) → (B, D)
        return graph.node("ReduceMean", [x], name="features", axes=[2, 3], keepdims=0)
    x = graph.layer_norm(x, "norm")  # (B, 1 + tokens, D) → the class token, (B, D)
    return graph.node("Gather", [x, graph.constant("class_token", np.array(0, np.int64))], name="features", axis=1)


# ------------------------------------------------------------------------------------------------------------ models/resnet.py


def _resnet_stages(graph: _Graph, shape: ResNetShape) -> list[Stage]:
    def stem(x: str) -> str:
        x = graph.relu(graph.convolution(x, "conv1", "bn1", stride=2))
        return graph.node("MaxPool", [x], name="pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def layer(number: int) -> Stage:
        def run(x: str) -> str:
            for block in range(shape.blocks[number]):
                stride = 2 if number > 0 and block == 0 else 1
                x = _residual_block(graph, x, f"layer{number + 1}.{block}", stride=stride)
            return x

        return run

    return [stem, *map(layer, range(4))]


def _residual_block(graph: _Graph, x: str, block: str, *, stride: int) -> str:
    """Two or three convolutions, plus the shortcut; the stride stands on the first one with a kernel of 3."""
    shortcut = x
    if f"{block}.downsample.0.weight" in graph.form.tensors:
        shortcut = graph.convolution(x, f"{block}.downsample.0", f"{block}.downsample.1", stride=stride)
    num_convolutions = 3 if f"{block}.conv3.weight" in graph.form.tensors else 2
    strided = num_convolutions - 1
    for place in range(1, num_convolutions + 1):
        x = graph.convolution(x, f"{block}.conv{place}", f"{block}.bn{place}", stride=stride if place == strided else 1)
        if place < num_convolutions:
            x = graph.relu(x)
    return graph.relu(graph.node("Add", [x, shortcut], name=f"{block}.sum"))


# --------------------------------------------------------------------------------------------------------------- models/vit.py


def _vit_stages(graph: _Graph, shape: ViTShape) -> list[Stage]:
    def embedding(x: str) -> str:  # (B, 3, S, S) → (B, 1 + tokens, D)
        patch, width = shape.patch_px, shape.width
        inputs = [x, graph.tensor("patch_embed.proj.weight"), graph.tensor("patch_embed.proj.bias")]
        x = graph.node("Conv", inputs, name="patches", strides=[patch] * 2)
        x = graph.node("Reshape", [x, graph.constant("patches.shape", np.array([0, width, -1]))], name="patches.flat")
        x = graph.node("Transpose", [x], name="tokens", perm=[0, 2, 1])
        # The class token as one more row in front, of which the position is added with all others.
        x = graph.node("Pad", [x, graph.constant("pads", np.array([0, 1, 0, 0, 0, 0]))], name="tokens.padded")
        position = _position(graph.form, shape)
        position[:, :1] += graph.form.tensors["cls_token"]
        return graph.node("Add", [x, graph.constant("position", position)], name="embedded")

    def quarter(number: int) -> Stage:
        per_stage = shape.num_blocks // 4

        def run(x: str) -> str:
            for block in range(number * per_stage, (number + 1) * per_stage):
                x = _encoder_block(graph, x, f"blocks.{block}", shape)
            return x

        return run

    return [embedding, *map(quarter, range(4))]


def _encoder_block(graph: _Graph, x: str, block: str, shape: ViTShape) -> str:
    attended = _attention(graph, graph.layer_norm(x, f"{block}.norm1"), f"{block}.attn", shape)
    x = graph.node("Add", [x, attended], name=f"{block}.attended")
    inner = graph.linear(graph.layer_norm(x, f"{block}.norm2"), f"{block}.mlp.fc1", name=f"{block}.mlp.fc1")
    inner = graph.linear(_gelu(graph, inner), f"{block}.mlp.fc2", name=f"{block}.mlp.fc2")
    return graph.node("Add", [x, inner], name=f"{block}.sum")


def _attention(graph: _Graph, x: str, name: str, shape: ViTShape) -> str:
    heads, width = shape.num_heads, shape.width // shape.num_heads
    x = graph.linear(x, f"{name}.qkv", name=f"{name}.qkv")
    x = graph.node(
        "Reshape", [x, graph.constant(f"{name}.parts", np.array([0, 0, 3, heads, width]))], name=f"{name}.5d"
    )
    x = graph.node("Transpose", [x], name=f"{name}.by_part", perm=[2, 0, 3, 1, 4])  # (3, B, heads, tokens, D / heads)
    query, key, value = (
        graph.node("Gather", [x, graph.constant(f"{name}.part{part}", np.array(part))], name=f"{name}.{word}", axis=0)
        for part, word in enumerate(("query", "key", "value"))
    )
    key = graph.node("Transpose", [key], name=f"{name}.key.turned", perm=[0, 1, 3, 2])
    query = graph.node(
        "Mul", [query, graph.constant(f"{name}.scale", np.array(width**-0.5, np.float32))], name=f"{name}.scaled"
    )
    weights = graph.node("MatMul", [query, key], name=f"{name}.scores")
    weights = graph.node("Softmax", [weights], name=f"{name}.weights", axis=-1)
    x = graph.node("MatMul", [weights, value], name=f"{name}.mixed")
    x = graph.node("Transpose", [x], name=f"{name}.by_token", perm=[0, 2, 1, 3])
    x = graph.node("Reshape", [x, graph.constant(f"{name}.flat", np.array([0, 0, -1]))], name=f"{name}.heads")
    return graph.linear(x, f"{name}.proj", name=f"{name}.proj")


def _gelu(graph: _Graph, x: str) -> str:
    """GELU in its exact form, x * (1 + erf(x / sqrt 2)) / 2. Source: Hendrycks and Gimpel 2016."""
    erf = graph.node("Mul", [x, graph.constant(f"{x}.root", np.array(0.5**0.5, np.float32))], name=f"{x}.by_root")
    erf = graph.node("Erf", [erf], name=f"{x}.erf")
    erf = graph.node("Add", [erf, graph.constant(f"{x}.one", np.array(1, np.float32))], name=f"{x}.erf1")
    half = graph.node("Mul", [x, graph.constant(f"{x}.half", np.array(0.5, np.float32))], name=f"{x}.halved")
    return graph.node("Mul", [half, erf], name=f"{x}.gelu")


def _position(form: Form, shape: ViTShape) -> NDArray[np.float32]:
    """The position embedding for the form's pictures: (1, 1 + tokens, D), a copy."""
    stored = form.tensors["pos_embed"]
    if form.preprocess.image_size == shape.image_px:
        return stored.copy()
    import torch  # only it resamples as the network was trained to see other sizes

    from foldertune.models.vit import resized_position

    side = form.preprocess.image_size // shape.patch_px
    return resized_position(torch.from_numpy(stored), side, side).numpy()
