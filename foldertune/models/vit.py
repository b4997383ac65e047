"""ViT-B/16 and ViT-L/16. Source: Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", figure 1, equations 1 to 4.

Tensor names are timm's. The position embedding keeps its trained size; for other pictures it is resized on the way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention

from foldertune.errors import SettingsError
from foldertune.models.architecture import LAYER_NORM_EPSILON, ViTShape
from foldertune.models.network import Network


class PatchEmbedding(nn.Module):
    """Each patch of P x P pixels becomes one token: a convolution with stride P (equation 1, the product with E)."""

    def __init__(self, patch_px: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_px, stride=patch_px)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x)  # (B, D, S/P, S/P)
        return tokens.flatten(2).transpose(1, 2)  # (B, tokens, D), row by row


class Attention(nn.Module):
    """Multi-head self-attention; query, key and value come from one product."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        x = scaled_dot_product_attention(query, key, value)  # (B, heads, tokens, D / heads)
        projected: Tensor = self.proj(x.transpose(1, 2).flatten(2))
        return projected


class Mlp(nn.Module):
    """Two linear layers with a GELU between, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.fc2(gelu(self.fc1(x)))
        return projected


class Block(nn.Module):
    """The encoder's block, norms first (equations 2 and 3)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON), Attention(width, num_heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON), Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = x + self.attn(self.norm1(x))
        block: Tensor = attended + self.mlp(self.norm2(attended))
        return block


class ViT(Network):
    """Patches, class token, positions; blocks in four equal stages; the norm of the class token, one linear layer."""

    head_name = "head"

    def __init__(self, shape: ViTShape, *, num_classes: int = 1000) -> None:
        super().__init__()
        self.name, self.num_classes, self.feature_size = shape.name, num_classes, shape.width
        self.patch_px, self.blocks_per_stage = shape.patch_px, shape.num_blocks // 4
        self.patch_embed = PatchEmbedding(shape.patch_px, shape.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.num_tokens, shape.width))
        self.blocks = nn.Sequential(*(Block(shape.width, shape.num_heads) for _ in range(shape.num_blocks)))
        self.norm = nn.LayerNorm(shape.width, eps=LAYER_NORM_EPSILON)
        self.head = nn.Linear(shape.width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def run_stage(self, stage: int, x: Tensor) -> Tensor:
        if stage == 0:  # (B, 3, S, S) → (B, 1 + tokens, D), equation 1
            position = self._position(x)
            class_token = self.cls_token.expand(len(x), -1, -1)
            return torch.cat((class_token, self.patch_embed(x)), dim=1) + position
        first = (stage - 1) * self.blocks_per_stage
        tokens: Tensor = self.blocks[first : first + self.blocks_per_stage](x)
        return tokens

    def pool(self, x: Tensor) -> Tensor:
        features: Tensor = self.norm(x)[:, 0]  # the class token, equation 4
        return features

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def stage_of(self, name: str) -> int:
        """The final norm counts to the last stage: it learns when the last blocks do."""
        top, _, rest = name.partition(".")
        if top == "blocks" and rest:
            return 1 + int(rest.partition(".")[0]) // self.blocks_per_stage
        return {"norm": self.num_stages - 1, "head": self.num_stages}.get(top, 0)

    def _position(self, x: Tensor) -> Tensor:
        """The position embedding for pictures of x's size: (1, 1 + tokens, D), resized as section 3.2 says."""
        rows, columns = x.shape[2] // self.patch_px, x.shape[3] // self.patch_px
        if rows * self.patch_px != x.shape[2] or columns * self.patch_px != x.shape[3]:
            raise SettingsError(
                f"{self.name} was given a picture of {x.shape[3]}x{x.shape[2]} pixels. "
                f"Accepted: image sizes that are multiples of {self.patch_px}, such as 224."
            )
        return resized_position(self.pos_embed, rows, columns)


def resized_position(position: Tensor, rows: int, columns: int) -> Tensor:
    """A position embedding (1, 1 + tokens, D) for a grid of rows x columns patches; see section 3.2."""
    side = int((position.shape[1] - 1) ** 0.5)
    if (rows, columns) == (side, side):
        return position
    class_position, grid = position[:, :1], position[:, 1:]
    grid = grid.transpose(1, 2).reshape(1, -1, side, side)  # (1, D, side, side)
    grid = interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat((class_position, grid.flatten(2).transpose(1, 2)), dim=1)
