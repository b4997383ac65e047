"""The peers' own forms of a ResNet-50, made from model.safetensors before anything is timed.

Every form takes (N, 224, 224, 3) uint8 pictures under the name `pictures`, normalisation inside, where the tool lets one choose.

usage: python model_files.py FOLDER FORM [PICTURE ...]     the pictures are for calibration
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HUGGING_FACE_LAYERS = {"conv": "convolution", "bn": "normalization"}


def classes_of(folder: Path) -> list[str]:
    return (folder / "labels.txt").read_text("utf-8").splitlines()


def network(folder: Path) -> Any:
    import torchvision_operators  # noqa: F401
    from safetensors.torch import load_file
    from torchvision import models

    model = models.resnet50(num_classes=len(classes_of(folder)))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def onnx_float32(folder: Path, pictures: list[str]) -> None:
    import torch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network(folder)
            self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

        def forward(self, x: Any) -> Any:
            return self.network((x.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std)

    example = torch.zeros(2, 224, 224, 3, dtype=torch.uint8)
    torch.onnx.export(
        Graph().eval(), (example,), folder / "float32.onnx", input_names=["pictures"], output_names=["logits"],
        dynamic_axes={"pictures": {0: "N"}, "logits": {0: "N"}}, opset_version=17, dynamo=False,
    )  # fmt: skip


def onnx_int8(folder: Path, pictures: list[str]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from squares import square

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(pictures)

        def get_next(self) -> dict[str, Any] | None:
            path = next(self.left, None)
            return None if path is None else {"pictures": square(path, draft=False)[None]}

    prepared = folder / "prepared.onnx"
    quant_pre_process(str(folder / "float32.onnx"), str(prepared))
    quantize_static(
        str(prepared), str(folder / "int8.onnx"), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    prepared.unlink()


def openvino_float32(folder: Path, pictures: list[str]) -> None:
    import openvino

    model = openvino.convert_model(folder / "float32.onnx")
    openvino.save_model(model, folder / "float32.xml", compress_to_fp16=False)


def openvino_int8(folder: Path, pictures: list[str]) -> None:
    import nncf
    import openvino
    from squares import square

    model = openvino.Core().read_model(folder / "float32.xml")
    calibration = nncf.Dataset([square(path, draft=False)[None] for path in pictures])
    made = nncf.quantize(model, calibration, subset_size=len(pictures))
    openvino.save_model(made, folder / "int8.xml", compress_to_fp16=False)


def hugging_face(folder: Path, pictures: list[str]) -> None:
    from safetensors.torch import load_file, save_file

    place = folder / "hugging-face"
    place.mkdir(exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    renamed = {hugging_face_name(name): value for name, value in tensors.items()}
    save_file(renamed, place / "model.safetensors", metadata={"format": "pt"})
    labels = dict(enumerate(classes_of(folder)))
    config = {
        "architectures": ["ResNetForImageClassification"], "model_type": "resnet", "num_labels": len(labels),
        "id2label": {str(number): name for number, name in labels.items()},
        "label2id": {name: number for number, name in labels.items()},
    }  # fmt: skip
    processor = {
        "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "resample": 2,
        "crop_size": {"height": 224, "width": 224}, "image_mean": MEAN, "image_std": STD,
    }  # fmt: skip
    (place / "config.json").write_text(json.dumps(config), "utf-8")
    (place / "preprocessor_config.json").write_text(json.dumps(processor), "utf-8")


def hugging_face_name(name: str) -> str:
    """Such as layer1.0.conv2.weight -> resnet.encoder.stages.0.layers.0.layer.1.convolution.weight."""
    parts = name.split(".")
    if parts[0] == "fc":
        return f"classifier.1.{parts[1]}"
    if not parts[0].startswith("layer"):
        kind = HUGGING_FACE_LAYERS[parts[0][:-1]]
        return f"resnet.embedder.embedder.{kind}.{parts[1]}"
    block = f"resnet.encoder.stages.{int(parts[0][5:]) - 1}.layers.{parts[1]}"
    if parts[2] == "downsample":
        return f"{block}.shortcut.{('convolution', 'normalization')[int(parts[3])]}.{parts[4]}"
    return f"{block}.layer.{int(parts[2][-1]) - 1}.{HUGGING_FACE_LAYERS[parts[2][:-1]]}.{parts[3]}"


def ultralytics(folder: Path, pictures: list[str]) -> None:
    """Ultralytics takes torchvision's networks; a head that ends in probabilities, names and transforms is all it wants."""
    import torch

    model = network(folder)
    from torchvision import transforms

    model.fc = torch.nn.Sequential(model.fc, torch.nn.Softmax(1))
    model.names = dict(enumerate(classes_of(folder)))
    model.task = "classify"
    model.transforms = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    torch.save({"model": model, "train_args": {}}, folder / "ultralytics.pt")


FORMS: dict[str, tuple[str, Callable[[Path, list[str]], None]]] = {
    "onnx-float32": ("float32.onnx", onnx_float32),
    "onnx-int8": ("int8.onnx", onnx_int8),
    "openvino-float32": ("float32.xml", openvino_float32),
    "openvino-int8": ("int8.xml", openvino_int8),
    "hugging-face": ("hugging-face/preprocessor_config.json", hugging_face),
    "ultralytics": ("ultralytics.pt", ultralytics),
}

if __name__ == "__main__":
    made, make = FORMS[sys.argv[2]]
    place = Path(sys.argv[1])
    if not (place / made).exists():
        make(place, sys.argv[3:])
    assert (place / made).exists()
