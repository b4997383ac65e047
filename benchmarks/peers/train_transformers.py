"""The Trainer of Hugging Face with a ResNet-50, crops and flips as in its example for image classification.

Prints one JSON line per epoch, with the test accuracy.

usage: python train_transformers.py FOLDER WEIGHTS.safetensors THREADS --epochs 5 --seed 1 [--rate 5e-5]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import torchvision_operators  # noqa: F401
from model_files import MEAN, STD, hugging_face_name
from safetensors.torch import load_file
from torchvision import datasets, transforms
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainerCallback, TrainingArguments


class Teller(TrainerCallback):  # type: ignore[misc]
    """Prints the accuracy of each epoch."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        print(json.dumps({"epoch": round(metrics["epoch"]), "test_accuracy": metrics["eval_accuracy"]}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("threads", type=int)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    normalise = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    varied = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *normalise])
    plain = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *normalise])
    train = datasets.ImageFolder(given.folder / "train", varied)
    test = datasets.ImageFolder(given.folder / "test", plain)
    model = ResNetForImageClassification(ResNetConfig(num_labels=len(train.classes)))
    tensors = {name: value for name, value in load_file(given.weights).items() if not name.startswith("fc.")}
    renamed = {hugging_face_name(name): value for name, value in tensors.items()}
    left = model.load_state_dict(renamed, strict=False)
    wanted = [name for name in left.missing_keys if not name.endswith("num_batches_tracked")]
    assert not left.unexpected_keys, left.unexpected_keys
    assert all(name.startswith("classifier.") for name in wanted), wanted
    rate = {} if given.rate is None else {"learning_rate": given.rate}
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch, num_train_epochs=given.epochs, per_device_train_batch_size=16,
            per_device_eval_batch_size=16, eval_strategy="epoch", save_strategy="no", report_to="none",
            remove_unused_columns=False, seed=given.seed, use_cpu=True, disable_tqdm=True, **rate,
        )  # fmt: skip
        trainer = Trainer(
            model, arguments, data_collator=collate, train_dataset=train, eval_dataset=test,
            compute_metrics=score, callbacks=[Teller()],
        )  # fmt: skip
        trainer.train()


def collate(rows: list[tuple[Any, int]]) -> dict[str, Any]:
    return {"pixel_values": torch.stack([row[0] for row in rows]), "labels": torch.tensor([row[1] for row in rows])}


def score(answers: Any) -> dict[str, float]:
    return {"accuracy": float((answers.predictions.argmax(1) == answers.label_ids).mean())}


if __name__ == "__main__":
    main()
