"""ResNet-18 to 152. Source: He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition", table 1.

Tensor names are torchvision's and timm's. The stride of a bottleneck stands on its 3x3 convolution ("v1.5", as in
published weights); `v1=True` puts it on the first 1x1, as in the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from foldertune.models.architecture import RESNETS
from foldertune.models.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable


def conv(num_in: int, num_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that halves the side at stride 2; no bias, because a batch norm follows."""
    return nn.Conv2d(num_in, num_out, kernel, stride=stride, padding=kernel // 2, bias=False)


def projection(num_in: int, num_out: int, stride: int) -> nn.Sequential | None:
    """The shortcut's 1x1 convolution where the shape changes (option B of the paper); None is the identity."""
    if num_in == num_out and stride == 1:
        return None
    return nn.Sequential(conv(num_in, num_out, 1, stride), nn.BatchNorm2d(num_out))


class BasicBlock(nn.Module):
    """3x3 → 3x3, plus the shortcut (figure 5, left)."""

    expansion = 1

    def __init__(self, num_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(num_in, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = projection(num_in, width, stride)
        nn.init.zeros_(self.bn2.weight)  # a new block begins as the identity: Goyal et al. 2017, section 5.1

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.bn2(self.conv2(x))
        return relu(x + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """1x1 reduce → 3x3 → 1x1 expand, plus the shortcut (figure 5, right)."""

    expansion = 4

    def __init__(self, num_in: int, width: int, stride: int, *, v1: bool = False) -> None:
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if v1 else (1, stride)
        num_out = width * self.expansion
        self.conv1, self.bn1 = conv(num_in, width, 1, stride_1x1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride_3x3), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, num_out, 1), nn.BatchNorm2d(num_out)
        self.downsample = projection(num_in, num_out, stride)
        nn.init.zeros_(self.bn3.weight)  # a new block begins as the identity: Goyal et al. 2017, section 5.1

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = relu(self.bn1(self.conv1(x)), inplace=True)
        x = relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.bn3(self.conv3(x))
        return relu(x + shortcut, inplace=True)


class ResNet(Network):
    """Stem, four stages of residual blocks, global average pooling, one linear layer (table 1)."""

    head_name = "fc"

    def __init__(self, depth: int = 50, *, num_classes: int = 1000, v1: bool = False) -> None:
        super().__init__()
        shape = RESNETS[depth]
        self.name, self.num_classes, self.feature_size = f"resnet{depth}", num_classes, shape.feature_size
        self.conv1, self.bn1 = conv(3, 64, 7, stride=2), nn.BatchNorm2d(64)
        stages, num_in = [], 64
        for number, num_blocks in enumerate(shape.blocks):
            blocks: list[nn.Module] = []
            width = 64 * 2**number
            for index in range(num_blocks):
                stride = 2 if number > 0 and index == 0 else 1
                if shape.bottleneck:
                    blocks.append(Bottleneck(num_in, width, stride, v1=v1))
                else:
                    blocks.append(BasicBlock(num_in, width, stride))
                num_in = width * shape.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(self.feature_size, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, "Delving Deep into Rectifiers", equation 10
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def run_stage(self, stage: int, x: Tensor) -> Tensor:
        if stage == 0:  # (B, 3, S, S) → (B, 64, S/4, S/4)
            x = relu(self.bn1(self.conv1(x)), inplace=True)
            return max_pool2d(x, kernel_size=3, stride=2, padding=1)
        layer: Callable[[Tensor], Tensor] = (self.layer1, self.layer2, self.layer3, self.layer4)[stage - 1]
        return layer(x)

    def pool(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))  # (B, D, H, W) → (B, D)

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits

    def stage_of(self, name: str) -> int:
        top = name.partition(".")[0]
        return {"layer1": 1, "layer2": 2, "layer3": 3, "layer4": 4, "fc": self.num_stages}.get(top, 0)
