"""The published weights of each network: a table of facts. The first of a network is what `imagenet` means for it.

All are ImageNet-1k classifiers from the timm organisation of the Hugging Face hub, with preprocessing as each
repository's config.json states it. A sha256 that is not known stands as None and is never invented.
Why tv_in1k comes first for ResNets: plainly trained weights give good frozen features, lose least when quantised, and
their licence is clear. Not listed: the fb_ssl, fb_swsl and SWAG weights, because their licence (CC BY-NC 4.0) forbids
commercial use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foldertune.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class WeightsFacts:
    """One published set of weights.

    sha256 None: not known to this version; recorded at the first download and checked ever after.
    """

    tag: str
    repository: str  # on the Hugging Face hub; the file is model.safetensors
    licence: str
    size_mb: float
    sha256: str | None
    preprocess: Preprocess
    note: str = ""

    @property
    def source(self) -> str:
        return f"https://huggingface.co/{self.repository}"


TV = Preprocess(image_size=224, crop_fraction=0.875, interpolation="bilinear")
TV2 = Preprocess(image_size=224, crop_fraction=0.965, interpolation="bilinear")
A1 = Preprocess(image_size=224, crop_fraction=0.95, interpolation="bicubic")
AUGREG = Preprocess(crop_fraction=0.9, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
PLAIN = "torchvision's first recipe"
A1_NOTE = "timm's A1 recipe; trained at 224 px, published for testing at 288 px"


def _tv(model: str, size_mb: float, sha256: str | None = None, note: str = PLAIN) -> WeightsFacts:
    return WeightsFacts(f"{model}.tv_in1k", f"timm/{model}.tv_in1k", "BSD-3-Clause", size_mb, sha256, TV, note)


def _a1(model: str, size_mb: float, sha256: str, *, recipe: str = "a1", note: str = A1_NOTE) -> WeightsFacts:
    tag = f"{model}.{recipe}_in1k"
    return WeightsFacts(tag, f"timm/{tag}", "Apache-2.0", size_mb, sha256, A1, note)


PUBLISHED: Mapping[str, tuple[WeightsFacts, ...]] = {
    "resnet18": (
        _tv("resnet18", 46.8, "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81"),
        _a1("resnet18", 46.8, "80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612"),
    ),
    "resnet34": (_tv("resnet34", 87.3),),
    "resnet50": (
        _tv(
            "resnet50",
            102.0,
            "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
            f"{PLAIN}; 76.13 % top-1 as published",
        ),
        _a1("resnet50", 102.0, "773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb"),
        WeightsFacts(
            "resnet50.tv2_in1k",
            "timm/resnet50.tv2_in1k",
            "BSD-3-Clause",
            102.0,
            None,
            TV2,
            "torchvision's second recipe; trained at 176 px; 80.86 % top-1 at 224 px as published",
        ),
    ),
    "resnet101": (
        _tv("resnet101", 179.0),
        _a1("resnet101", 179.0, "1ba5b660e7c175b3c27c557fc7dc8b2815be830c516815b0155f61b403f27380"),
        _a1(
            "resnet101",
            179.0,
            "1a076c0384295e7d3704f201c5711ff245507db934230bab72ff3014a95f90fe",
            recipe="a1h",
            note="timm's A1 recipe with more regularisation; trained at 224 px, published for testing at 288 px",
        ),
    ),
    "resnet152": (_tv("resnet152", 241.0),),
    "vit_base": (
        WeightsFacts(
            "vit_base",
            "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
            "Apache-2.0",
            346.0,
            None,
            AUGREG,
            "pretrained on ImageNet-21k, then ImageNet-1k",
        ),
    ),
    "vit_large": (
        WeightsFacts(
            "vit_large",
            "timm/vit_large_patch16_224.augreg_in21k_ft_in1k",
            "Apache-2.0",
            1220.0,
            None,
            AUGREG,
            "pretrained on ImageNet-21k, then ImageNet-1k",
        ),
    ),
}
