"""Every tensor of every network by its name and shape, without torch: what a weights file must hold, and what an engine is made from.

Names are torchvision's for ResNets and timm's for ViTs. A test compares this with the networks that torch builds.
"""

from __future__ import annotations

from collections.abc import Iterator

from foldertune.models.architecture import ResNetShape, ViTShape, shape_of

TensorShape = tuple[int, ...]
COUNTER = "num_batches_tracked"  # of a batch norm; nothing is computed from it, and files may lack it


def tensors_of(model: str, *, num_classes: int) -> dict[str, TensorShape]:
    """The shape of each tensor by its name, in the order of a state_dict.   model: as in the catalogue.   num_classes: from 1."""
    shape = shape_of(model)
    if isinstance(shape, ResNetShape):
        return {**dict(_resnet(shape)), **dict(_linear(head_of(model), shape.feature_size, num_classes))}
    return {**dict(_vit(shape)), **dict(_linear(head_of(model), shape.width, num_classes))}


def head_of(model: str) -> str:
    """What the names of the classifier's tensors begin with, before a dot."""
    return "fc" if isinstance(shape_of(model), ResNetShape) else "head"


Entries = Iterator[tuple[str, TensorShape]]


def _resnet(shape: ResNetShape) -> Entries:
    yield from _conv_norm("conv1", "bn1", (64, 3, 7, 7))
    num_in = 64
    for stage, num_blocks in enumerate(shape.blocks):
        width, num_out = 64 * 2**stage, shape.channels[stage]
        for number in range(num_blocks):
            block = f"layer{stage + 1}.{number}"
            if shape.bottleneck:
                kernels = [(width, num_in, 1, 1), (width, width, 3, 3), (num_out, width, 1, 1)]
            else:
                kernels = [(width, num_in, 3, 3), (width, width, 3, 3)]
            for place, kernel in enumerate(kernels, start=1):
                yield from _conv_norm(f"{block}.conv{place}", f"{block}.bn{place}", kernel)
            if number == 0 and (stage > 0 or num_in != num_out):
                yield from _conv_norm(f"{block}.downsample.0", f"{block}.downsample.1", (num_out, num_in, 1, 1))
            num_in = num_out


def _conv_norm(conv: str, norm: str, kernel: TensorShape) -> Entries:
    yield f"{conv}.weight", kernel
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield f"{norm}.{name}", kernel[:1]
    yield f"{norm}.{COUNTER}", ()


def _vit(shape: ViTShape) -> Entries:
    width = shape.width
    yield "cls_token", (1, 1, width)
    yield "pos_embed", (1, shape.num_tokens, width)
    yield "patch_embed.proj.weight", (width, 3, shape.patch_px, shape.patch_px)
    yield "patch_embed.proj.bias", (width,)
    for number in range(shape.num_blocks):
        block = f"blocks.{number}"
        yield from _norm(f"{block}.norm1", width)
        yield from _linear(f"{block}.attn.qkv", width, 3 * width)
        yield from _linear(f"{block}.attn.proj", width, width)
        yield from _norm(f"{block}.norm2", width)
        yield from _linear(f"{block}.mlp.fc1", width, 4 * width)
        yield from _linear(f"{block}.mlp.fc2", 4 * width, width)
    yield from _norm("norm", width)


def _norm(name: str, width: int) -> Entries:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _linear(name: str, num_in: int, num_out: int) -> Entries:
    yield f"{name}.weight", (num_out, num_in)
    yield f"{name}.bias", (num_out,)
