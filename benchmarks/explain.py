"""Do maps point at what tells the classes apart, how well do boxes fit, and is a network without learning found out?

Pictures are made: a card with a handwritten digit at a random place of a photograph; the colour of its paper is the class, so that the
evidence and its box are known.
The head of a network is fitted on them; maps are then drawn for test pictures, with its weights and with random ones.

usage: python benchmarks/explain.py [--weights FILE] [--model NAME] [--checked N] [--no-page]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tables import load_now, parser_of, publish
from tables import page as page_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foldertune.explanation.explainer import Explainer
    from foldertune.explanation.geometry import Grid
    from foldertune.records import Explanation

PAPERS = {"red": (226, 60, 50), "green": (60, 190, 80), "blue": (60, 90, 220), "yellow": (240, 214, 60)}
PICTURE_PX, CARD_PX, MARGIN_PX = 256, 72, 20
NUM_TRAIN, NUM_TEST = 30, 10  # of each class
PLACES = {"step i + 0.5 (taken)": 0.5, "step i + 5": 5.0, "the middle of step x step pixels": 16.0}
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
Place = tuple[int, int, int, int]  # left, top, right, bottom


def main() -> None:
    parser = parser_of(__doc__, "explain", rounds=False)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--checked", type=int, default=16, help="pictures whose trust is worked out")
    given = parser.parse_args()
    load = load_now()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        cards = make_cards(place / "cards")
        import foldertune

        run = foldertune.train(
            place / "cards", run=place / "run", weights=given.weights, model=given.model, tune="head", device="cpu"
        )
        parts = [
            f"{given.model}, head fitted; test accuracy {run.evaluate().accuracy.value:.3f}, {len(cards)} pictures."
        ]
        parts += [pointing(place / "run", cards), checked(place, list(cards)[:: max(1, len(cards) // given.checked)])]
    page = page_of("Maps against known evidence", parts, arguments=sys.argv, load=load)
    publish("explain" if given.model == "resnet50" else f"explain-{given.model}", page, write=not given.no_page)


def make_cards(folder: Path) -> dict[Path, Place]:
    """Training and test pictures in `folder`; of the latter where the card is."""
    from PIL import Image
    from sklearn.datasets import load_digits, load_sample_image

    digits, random, found = load_digits(), np.random.default_rng(1), dict[Path, Place]()
    photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    for colour, paper in PAPERS.items():
        for place in range(NUM_TRAIN + NUM_TEST):
            split = "train" if place < NUM_TRAIN else "test"
            path = folder / split / colour / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photograph = photographs[random.integers(2)]
            top, left = (int(random.integers(0, size - PICTURE_PX)) for size in photograph.shape[:2])
            picture = photograph[top : top + PICTURE_PX, left : left + PICTURE_PX].copy()
            ink = Image.fromarray(
                (16 * digits.images[random.integers(len(digits.images))]).clip(0, 255).astype(np.uint8)
            )
            shown = np.asarray(ink.resize((CARD_PX, CARD_PX), Image.Resampling.BICUBIC))[..., None] / 255
            card = (np.array(paper) * (1 - shown)).round().astype(np.uint8)
            x, y = random.integers(MARGIN_PX, PICTURE_PX - MARGIN_PX - CARD_PX, 2).tolist()
            picture[y : y + CARD_PX, x : x + CARD_PX] = card
            Image.fromarray(picture).save(path)
            if split == "test":
                found[path] = (x, y, x + CARD_PX, y + CARD_PX)
    return found


def pointing(run: Path, cards: dict[Path, Place]) -> str:
    """How often the hottest place lies on the card, and how well the first box fits it, by where a cell's centre is taken to be."""
    maps = {path: grid_of(opened, path) for opened in [open_run(run)] for path in cards}
    share = CARD_PX**2 / (PICTURE_PX * 0.875) ** 2
    lines = [f"By chance {share:.0%} of the hottest places lie on the card.", ""]
    lines += [
        "| centre of a cell | hottest place on the card | "
        + " | ".join(f"IoU, {each:g} of the largest" for each in THRESHOLDS)
        + " |"
    ]
    lines += ["|---" * (len(THRESHOLDS) + 2) + "|"]
    for name, first_px in PLACES.items():
        moved = {path: replace(grid, first_px=first_px) for path, grid in maps.items()}
        hits = np.mean([is_hit(moved[path], card) for path, card in cards.items()])
        fits = [np.mean([fit_of(moved[path], card, hot) for path, card in cards.items()]) for hot in THRESHOLDS]
        lines.append(f"| {name} | {hits:.0%} | " + " | ".join(f"{fit:.2f}" for fit in fits) + " |")
    return "\n".join(lines)


def is_hit(grid: Grid, card: Place) -> bool:
    """Whether the hottest pixel of the picture lies on the card."""
    from foldertune.explanation.geometry import heat_in_picture, window_of
    from foldertune.preprocess import Preprocess

    size = (PICTURE_PX, PICTURE_PX)
    heat, _ = heat_in_picture(grid, window_of(*size, Preprocess()), size)
    y, x = np.unravel_index(int(heat.argmax()), heat.shape)
    return bool(card[0] <= x < card[2] and card[1] <= y < card[3])


def fit_of(grid: Grid, card: Place, hot: float) -> float:
    """Intersection over union of the first box and the card."""
    from foldertune.explanation.boxes import hot_boxes
    from foldertune.explanation.geometry import window_of
    from foldertune.preprocess import Preprocess

    size = (PICTURE_PX, PICTURE_PX)
    boxes = hot_boxes(grid, window_of(*size, Preprocess()), size, hot=hot)
    if not boxes:
        return 0.0
    box = boxes[0]
    across = max(0, min(box.right, card[2]) - max(box.left, card[0]))
    down = max(0, min(box.bottom, card[3]) - max(box.top, card[1]))
    union = (box.right - box.left) * (box.bottom - box.top) + CARD_PX**2 - across * down
    return across * down / union


def checked(place: Path, paths: Sequence[Path]) -> str:
    """Trust with the learned weights and with random ones, and the seconds that an explanation takes."""
    without = place / "random"
    shutil.copytree(place / "run", without)
    forget(without)
    lines = [
        "| weights | pictures | mean trust | with a warning | likeness, mean (most) | span, mean | s a picture |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, run in (("learned", place / "run"), ("random", without)):
        began = time.monotonic()
        found = [each for each, _ in open_run(run, output=place / f"maps {name}").explain(paths)]
        lines.append(row_of(name, found, time.monotonic() - began))
    return "\n".join(lines)


def row_of(name: str, found: Sequence[Explanation], seconds: float) -> str:
    trust, marked = [each.trust or 0.0 for each in found], sum(bool(each.warnings) for each in found)
    checks = [each.checks for each in found if each.checks]
    likeness, span = [each.likeness for each in checks], [each.span for each in checks]
    return (
        f"| {name} | {len(found)} | {np.mean(trust):.2f} | {marked} | {np.mean(likeness):.2f} ({max(likeness):.2f}) | "
        f"{np.mean(span):.3f} | {seconds / len(found):.1f} |"
    )


def forget(run: Path) -> None:
    """Put random weights into a run; its golden answers are those of others."""
    import torch

    from foldertune.evaluation.saved_model import read_saved_model
    from foldertune.models import build
    from foldertune.models.weights import write_weights

    saved = read_saved_model(run)
    torch.manual_seed(0)
    write_weights(build(saved.model, num_classes=len(saved.classes)), saved.run.model)
    saved.run.golden.unlink()


def open_run(run: Path, output: Path | None = None) -> Explainer:
    from foldertune.explanation.explainer import Wanted, open_explainer
    from foldertune.records import finish

    wanted = Wanted(output or run / "explanations", num_nearest=0)
    wanted.output.mkdir(exist_ok=True)
    return finish(open_explainer(run, wanted))


def grid_of(explainer: Explainer, path: Path) -> Grid:
    """The map of the answered class."""
    from foldertune.images import decode
    from foldertune.preprocess import prepare

    square: NDArray[np.uint8] = prepare(decode(path.read_bytes()), explainer.saved.preprocess)
    return explainer.map_of(square, int(explainer.predictor.probabilities(square[None])[0].argmax())).grid


if __name__ == "__main__":
    main()
