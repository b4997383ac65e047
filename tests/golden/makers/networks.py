"""Write tests/golden/networks.json: what timm's networks answer to ramps, and how their tensors are called.

usage: python tests/golden/makers/networks.py        (needs timm and torchvision; both must agree where both have the network)
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(GOLDEN.parent))

NUM_CLASSES = 8
# case: (timm's name, its arguments, side of the pictures)
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    **{f"resnet{depth}": (f"resnet{depth}", {}, 64) for depth in (18, 34, 50, 101, 152)},
    "resnet50_v1": ("resnet50", {}, 64),
    "vit_base": ("vit_base_patch16_224", {}, 224),
    "vit_base_4_blocks_160_px": ("vit_base_patch16_224", {"depth": 4, "dynamic_img_size": True}, 160),
    "vit_large_4_blocks": ("vit_large_patch16_224", {"depth": 4}, 224),
    "vit_large": ("vit_large_patch16_224", {}, 224),
}


def stride_on_first(network: Any) -> None:
    """Turn a v1.5 bottleneck network into the paper's: the stride moves to the first 1x1."""
    for name, module in network.named_modules():
        if name.endswith(".conv2") and module.stride == (2, 2):
            module.stride = (1, 1)
            network.get_submodule(name.replace("conv2", "conv1")).stride = (2, 2)


def digest(network: Any) -> str:
    """sha256 over the sorted lines "name shape" of every tensor."""
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in network.state_dict().items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def answer(case: str) -> dict[str, Any]:
    import timm
    import torch
    import torchvision
    from ramps import fill_with_ramps, ramp_pictures

    name, arguments, image_px = CASES[case]
    network = timm.create_model(name, num_classes=NUM_CLASSES, **arguments).eval()
    fill_with_ramps(network)
    pictures = ramp_pictures(image_px, num_pictures=1 if case == "vit_large" else 2)
    if case.endswith("_v1"):
        stride_on_first(network)
    with torch.inference_mode():
        logits = network(pictures)
        if name.startswith("resnet") and not case.endswith("_v1"):
            other = getattr(torchvision.models, name)(num_classes=NUM_CLASSES).eval()
            fill_with_ramps(other)
            torch.testing.assert_close(other(pictures), logits, rtol=0, atol=1e-5)
    return {"image_px": image_px, "logits": logits.tolist(), "tensors": digest(network)}


if __name__ == "__main__":
    import timm
    import torch
    import torchvision

    torch.set_num_threads(2)
    versions = {"torch": torch.__version__, "timm": timm.__version__, "torchvision": torchvision.__version__}
    content = {"made_with": versions, "num_classes": NUM_CLASSES, "cases": {case: answer(case) for case in CASES}}
    (GOLDEN / "networks.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
