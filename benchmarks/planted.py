"""Does `look` find faults that are planted, and only those? Wrong labels, copies, conflicts, leaks, shortcuts, mirrored classes.

Each folder (splits and classes) is copied with one kind of fault at a time, and looked at as a user would. Faults are drawn by the
seed, which was not used while limits were chosen (those were chosen on seed 0).

usage: python benchmarks/planted.py FOLDER ... --weights FILE.safetensors [--seed 1]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from picture_sets import pictures_below
from PIL import Image, ImageDraw
from tables import load_now, page, parser_of, publish

WRONG_LABELS, COPIED, LEAKED = 0.05, 0.10, 0.05  # shares of the pictures
MARKS = ("AB", "X7", "QQ", "MN", "R5", "ZT", "KK", "3D", "W8", "HO", "PU", "9L")
CHANGES = ("resized", "recompressed", "mirrored", "cropped")
ARROWS_OF_A_CLASS = 60


@dataclass(frozen=True, slots=True)
class Source:
    """One picture of a set: its file, split and class."""

    path: Path
    split: str
    label: str


def main() -> None:
    parser = parser_of(__doc__, "planted", rounds=False)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.weights, load = given.weights.absolute(), load_now()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FOLDERTUNE_CACHE"] = str(Path(scratch) / "cache")
        for folder in given.folders:
            for row in judged(folder, Path(scratch) / folder.name, given):
                print(*row, sep=" | ", flush=True)
                rows.append(row)
            shutil.rmtree(Path(scratch) / folder.name)
        rows += list(judged_arrows(Path(scratch) / "arrows", given))
    head = "| set | planted | found |\n|---|---|---|\n"
    table = head + "\n".join(f"| {' | '.join(row)} |" for row in rows)
    publish(
        "planted",
        page("Planted faults", [__doc__.split("\n\nusage")[0], table], arguments=sys.argv, load=load),
        write=not given.no_page,
    )


def judged(folder: Path, place: Path, given: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """A row for each kind of fault."""
    sources = [Source(path, path.relative_to(folder).parts[0], path.parent.name) for path in pictures_below(folder)]
    classes = sorted({source.label for source in sources})
    plant = Planter(sources, classes, place, np.random.default_rng(given.seed))
    yield folder.name, "nothing", found_in_clean(plant.clean(), given)
    yield folder.name, f"{WRONG_LABELS:.0%} asymmetric wrong labels", found_labels(*plant.wrong_labels(), given)
    yield folder.name, f"{COPIED:.0%} copies, {', '.join(CHANGES)}", kept_together(*plant.copies())
    yield folder.name, f"{LEAKED:.0%} of train copied into test", found_leaks(*plant.leaks())
    for name, change in (("a mark for each class", mark_each), ("a mark of one class", mark_one)):
        yield folder.name, name, first_finding(plant.changed(name, change))
    yield folder.name, "one class as PNG", first_finding(plant.changed("png", lambda image, number: image, png=True))
    yield (
        folder.name,
        "one class by another camera",
        first_finding(plant.changed("camera", lambda image, number: image, cameras=True)),
    )
    yield (
        folder.name,
        f"{COPIED:.0%} copies under the next class",
        found_conflicts(*plant.conflicts(), given),
    )  # last: the draws of the others stay


class Planter:
    """Copies of a set, each with one kind of fault, below `place`."""

    def __init__(self, sources: list[Source], classes: list[str], place: Path, random: np.random.Generator) -> None:
        self.sources, self.classes, self.place, self.random = sources, classes, place, random

    def _put(self, name: str, source: Source, label: str = "") -> Path:
        target = self.place / name / (label or source.label) / f"{source.split}-{source.path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.path, target)
        return target

    def _chosen(self, share: float, sources: list[Source]) -> list[int]:
        return sorted(self.random.choice(len(sources), round(share * len(sources)), replace=False).tolist())

    def clean(self) -> Path:
        for source in self.sources:
            self._put("clean", source)
        return self.place / "clean"

    def wrong_labels(self) -> tuple[Path, set[str]]:
        """Some pictures of each class under the next one."""
        chosen, wrong = set(self._chosen(WRONG_LABELS, self.sources)), set()
        for number, source in enumerate(self.sources):
            label = source.label
            if number in chosen:
                label = self.classes[(self.classes.index(label) + 1) % len(self.classes)]
            target = self._put("labels", source, label)
            if number in chosen:
                wrong.add(target.relative_to(self.place / "labels").as_posix())
        return self.place / "labels", wrong

    def conflicts(self) -> tuple[Path, list[tuple[str, str]]]:
        """Some pictures changed under the next class too. Pairs: the right one, the wrong one."""
        pairs: list[tuple[str, str]] = []
        top, chosen = self.place / "conflicts", set(self._chosen(COPIED, self.sources))
        for number, source in enumerate(self.sources):
            target = self._put("conflicts", source)
            if number in chosen:
                label = self.classes[(self.classes.index(source.label) + 1) % len(self.classes)]
                copy = top / label / f"copy-{len(pairs):04}.jpg"
                copy.parent.mkdir(parents=True, exist_ok=True)
                save_changed(source.path, copy, CHANGES[len(pairs) % len(CHANGES)], self.random)
                pairs.append((relative(target, top), relative(copy, top)))
        return top, pairs

    def copies(self) -> tuple[Path, list[tuple[str, str]]]:
        """Some pictures twice: as they are and changed."""
        pairs: list[tuple[str, str]] = []
        chosen = set(self._chosen(COPIED, self.sources))
        for number, source in enumerate(self.sources):
            target = self._put("copies", source)
            if number in chosen:
                copy = target.with_name(f"copy-{len(pairs):04}.jpg")
                save_changed(source.path, copy, CHANGES[len(pairs) % len(CHANGES)], self.random)
                pairs.append((relative(target, self.place / "copies"), relative(copy, self.place / "copies")))
        return self.place / "copies", pairs

    def leaks(self) -> tuple[Path, list[tuple[str, str]]]:
        """The given splits, with changed copies of some training pictures in test."""
        pairs: list[tuple[str, str]] = []
        top = self.place / "leaks"
        chosen = set(self._chosen(LEAKED, [each for each in self.sources if each.split == "train"]))
        teaching = 0
        for source in self.sources:
            target = top / source.split / source.label / source.path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.path, target)
            if source.split != "train":
                continue
            if teaching in chosen:
                copy = top / "test" / source.label / f"copy-{len(pairs):04}.jpg"
                copy.parent.mkdir(parents=True, exist_ok=True)
                save_changed(source.path, copy, CHANGES[len(pairs) % len(CHANGES)], self.random)
                pairs.append((relative(target, top), relative(copy, top)))
            teaching += 1
        return top, pairs

    def changed(
        self, name: str, change: Callable[[Image.Image, int], Image.Image], *, png: bool = False, cameras: bool = False
    ) -> Path:
        """Every picture changed by its class and saved anew in the same way, but for what is planted."""
        for source in self.sources:
            number = self.classes.index(source.label)
            target = self.place / name / source.label / f"{source.split}-{source.path.stem}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(source.path) as opened:
                image = change(opened.convert("RGB"), number)
            exif = Image.Exif()
            if cameras:
                exif[0x010F], exif[0x0110] = "Acme", "A1" if number == 0 else str(self.random.choice(["B2", "C3"]))
            if png and number == 0:
                image.save(target.with_suffix(".png"))
            else:
                image.save(target, quality=90, exif=exif)
        return self.place / name


def save_changed(source: Path, target: Path, change: str, random: np.random.Generator) -> None:
    """A copy of a picture as it comes to be in real folders."""
    with Image.open(source) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    if change == "resized":
        scale = random.uniform(0.5, 0.9)
        image = image.resize((round(scale * width), round(scale * height)))
    elif change == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif change == "cropped":
        left, top = round(0.05 * width), round(0.05 * height)
        image = image.crop((left, top, width - left, height - top))
    image.save(target, quality=40 if change == "recompressed" else 90)


def mark_each(image: Image.Image, number: int) -> Image.Image:
    return marked(image, MARKS[number % len(MARKS)], (4, 4))


def mark_one(image: Image.Image, number: int) -> Image.Image:
    return marked(image, "SHOP.COM", (image.width - 56, image.height - 16)) if number == 0 else image


def marked(image: Image.Image, text: str, place: tuple[int, int]) -> Image.Image:
    """White letters that the picture shines through."""
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    ImageDraw.Draw(layer).text(place, text, fill=(255, 255, 255, 160))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


# ----------------------------------------------------------------------------------------------------------- what was found


def found_in_clean(folder: Path, given: argparse.Namespace) -> str:
    import foldertune

    found = foldertune.look(folder, weights=str(given.weights)).findings
    told = [f"{each.severity} {each.kind} ({len(each.evidence)})" for each in found if each.severity != "note"]
    flip = foldertune.plan(folder, weights=str(given.weights))["flip"]
    return f"{', '.join(told) or 'nothing'}; the plan {'mirrors' if flip else 'does not mirror'}"


def found_labels(folder: Path, wrong: set[str], given: argparse.Namespace) -> str:
    import foldertune

    found = foldertune.look(folder, weights=str(given.weights)).findings
    suspects = [row.path for each in found if each.kind == "label_suspect" for row in each.evidence]
    count = len(wrong)
    hits = [sum(path in wrong for path in suspects[:most]) for most in (count, 2 * count)]
    return f"recall {hits[1] / count:.2f} among the first {2 * count}, {hits[0] / count:.2f} among the first {count}; {len(suspects)} named"


def found_conflicts(folder: Path, pairs: list[tuple[str, str]], given: argparse.Namespace) -> str:
    import foldertune

    found = foldertune.look(folder, weights=str(given.weights)).findings
    rows = [row for each in found if each.kind == "label_conflict" for row in each.evidence]
    right_of = {frozenset(pair): Path(pair[0]).parts[0] for pair in pairs}
    known = [(row.suggested, right_of[pair]) for row in rows if (pair := frozenset((row.path, row.other))) in right_of]
    taken = [side == right for side, right in known if side]
    share = sum(taken) / max(1, len(taken))
    return (
        f"{len(known)} of {len(pairs)} found; a side taken in {len(taken)}, the right one in {sum(taken)} ({share:.1%})"
    )


def kept_together(folder: Path, pairs: list[tuple[str, str]]) -> str:
    from foldertune.examination import look
    from foldertune.records import finish
    from foldertune.settings import Wish

    looked = finish(look(Wish(folder, {}, {})))
    split = {picture.path: picture.split for picture in looked.dataset.pictures}
    together = sum(split[one] == split[other] for one, other in pairs)
    path_of = {picture.row: picture.path for picture in looked.dataset.pictures}
    named = {frozenset((path_of[pair.first], path_of[pair.second])) for pair in looked.kin.copies}
    merged = {path for pair in named - set(map(frozenset, pairs)) for path in pair}
    return (
        f"{together} of {len(pairs)} on one side ({together / len(pairs):.1%}), {len(named & set(map(frozenset, pairs)))} named; "
        f"{len(merged)} distinct pictures merged ({len(merged) / len(split):.2%})"
    )


def found_leaks(folder: Path, pairs: list[tuple[str, str]]) -> str:
    import foldertune

    found = foldertune.look(folder, weights="random").findings
    named = {frozenset((row.path, row.other)) for each in found if each.kind == "split_leak" for row in each.evidence}
    planted = set(map(frozenset, pairs))
    false = len(named - planted)
    share = false / max(1, len(named))
    return f"{len(named & planted)} of {len(planted)} found, {false} false names ({share:.1%}); first finding: {found[0].kind}"


def first_finding(folder: Path) -> str:
    import foldertune

    found = foldertune.look(folder, weights="random").findings
    return f"{found[0].kind}: {found[0].sentence.split(' alone')[0]}" if found else "nothing"


def judged_arrows(place: Path, given: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """Arrows to the left and to the right, and to all four sides: a mirrored one is another class."""
    import foldertune

    random = np.random.default_rng(given.seed)
    for names in (("left", "right"), ("left", "right", "up", "down")):
        folder = place / "-".join(names)
        for name in names:
            (folder / name).mkdir(parents=True)
            for number in range(ARROWS_OF_A_CLASS):
                arrow(name, random).save(folder / name / f"{number}.jpg")
        found = foldertune.look(folder, weights=str(given.weights)).findings
        mirrored = any("mirrored" in each.sentence for each in found if each.kind == "augmentation_conflict")
        flip = foldertune.plan(folder, weights=str(given.weights))["flip"]
        row = (
            "arrows",
            ", ".join(names),
            f"mirroring {'is' if mirrored else 'is not'} named; the plan {'mirrors' if flip else 'does not mirror'}",
        )
        print(*row, sep=" | ", flush=True)
        yield row


def arrow(name: str, random: np.random.Generator) -> Image.Image:
    """An arrow of random colour, size and place on a plain ground."""
    ground, ink = (tuple(int(value) for value in random.integers(*levels, 3)) for levels in ((180, 255), (0, 120)))
    image = Image.new("RGB", (200, 200), ground)
    length, width, head = random.integers(60, 100), random.integers(8, 24), random.integers(20, 40)
    x, y = random.integers(80, 120, 2)
    neck = x + length // 2 - head // 2
    draw = ImageDraw.Draw(image)
    draw.rectangle([int(x - length // 2), int(y - width // 2), int(neck), int(y + width // 2)], fill=ink)
    draw.polygon([(int(neck), int(y - head)), (int(neck + head), int(y)), (int(neck), int(y + head))], fill=ink)
    angle = {"right": 0, "up": 90, "left": 180, "down": 270}[name] + random.uniform(-8, 8)
    return image.rotate(float(angle), fillcolor=ground)


def relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


if __name__ == "__main__":
    main()
