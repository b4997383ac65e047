"""`explain` as a whole: maps that point at known evidence, names, turned pictures, errors, neighbours, the page, determinism."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import foldertune
from folders import picture_bytes, state_of
from picture_files import ORIENTATION
from PIL import Image
from squares_run import COLOURS, PICTURE_PX, SQUARE_PX, make_run, make_square
from test_report import Page

import foldertune as package
from foldertune.commands.trust import explain as command
from foldertune.errors import DataError, MissingError, SettingsError
from foldertune.evaluation.predict import open_model, picture_files
from foldertune.evaluation.saved_model import read_saved_model
from foldertune.explaining import explaining
from foldertune.explanation.explainer import Explainer, Wanted, explain_files, map_name, open_explainer
from foldertune.explanation.geometry import heat_in_picture, window_of
from foldertune.explanation.nearest import open_album
from foldertune.images import decode
from foldertune.models import build
from foldertune.models.weights import write_weights
from foldertune.preprocess import prepare
from foldertune.records import Event, Explanation, finish

TURNS = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
    5: Image.Transpose.TRANSPOSE,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:  # a cache that stays for the module
        place = tmp_path_factory.mktemp("squares")
        patch.setenv("FOLDERTUNE_CACHE", str(place / "cache"))
        return make_run(place)


@pytest.fixture
def same_cache(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(run.parent / "cache"))


@pytest.fixture(scope="module")
def shared(run: Path) -> Explainer:
    """Opening takes longer than explaining."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLDERTUNE_CACHE", str(run.parent / "cache"))
        return finish(open_explainer(run, Wanted(run.parent)))


@pytest.fixture
def explainer(shared: Explainer, tmp_path: Path) -> Explainer:
    """Writes into `maps`."""
    (tmp_path / "maps").mkdir()
    return dataclasses.replace(shared, wanted=Wanted(tmp_path / "maps"))


@pytest.fixture
def one(tmp_path: Path) -> Path:
    make_square(tmp_path / "one.png", "green", seed=1000)
    return tmp_path / "one.png"


def opened(run: Path, output: Path, **wanted: Any) -> Explainer:
    output.mkdir(exist_ok=True)
    return finish(open_explainer(run, Wanted(output, **{"num_nearest": 0, **wanted})))


# Where the evidence is


def test_maps_of_known_evidence_have_their_hottest_place_on_it(explainer: Explainer, tmp_path: Path) -> None:
    hits, num_pictures = 0, 30
    for number in range(num_pictures):
        path = tmp_path / f"{number}.png"
        left, top = make_square(path, list(COLOURS)[number % 3], seed=2000 + number)
        square = prepare(decode(path.read_bytes()), explainer.saved.preprocess)
        answer = int(explainer.predictor.probabilities(square[None])[0].argmax())
        grid = explainer.map_of(square, answer).grid
        heat, _ = heat_in_picture(
            grid, window_of(PICTURE_PX, PICTURE_PX, explainer.saved.preprocess), (PICTURE_PX,) * 2
        )
        y, x = np.unravel_index(int(heat.argmax()), heat.shape)
        hits += int(left <= x < left + SQUARE_PX and top <= y < top + SQUARE_PX)
    by_chance = SQUARE_PX**2 / PICTURE_PX**2
    assert by_chance < 0.18
    assert hits / num_pictures >= 0.9  # measured: 45 of 45


@pytest.mark.usefixtures("same_cache")
def test_explain_trusts_what_was_learned_and_flags_random_weights(
    run: Path, explainer: Explainer, tmp_path: Path
) -> None:
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.png")
        make_square(paths[-1], list(COLOURS)[number % 3], seed=3000 + number)
    learned = [found for found, _ in explainer.explain(paths)]
    random = tmp_path / "random"
    shutil.copytree(run, random)
    forget(random)
    unlearned = [found for found, _ in opened(random, tmp_path / "others").explain(paths)]
    assert np.mean([found.trust for found in learned]) > 0.5
    assert sum(not found.warnings for found in learned) >= 3
    assert all(found.warnings for found in unlearned)
    assert max(found.trust or 0 for found in unlearned) < 0.3
    for found in learned:
        assert found.checks is not None
        assert found.checks.insertion > found.checks.deletion


def forget(run: Path) -> None:
    """Random weights in place of the learned ones; the golden answers are those of others."""
    saved = read_saved_model(run)
    torch.manual_seed(0)
    write_weights(build(saved.model, num_classes=len(saved.classes)), saved.run.model)
    saved.run.golden.unlink()


@pytest.mark.slow
def test_explain_of_a_real_network_with_random_weights_is_flagged(
    material: Callable[[str], Path], real_weights: Path, tmp_path: Path
) -> None:
    source = material("data/seedlings")
    for split, most in (("train", 24), ("test", 4)):
        for label in sorted(path.name for path in (source / split).iterdir())[:3]:
            for path in sorted((source / split / label).iterdir())[:most]:
                target = tmp_path / "pictures" / split / label / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    run = package.train(
        tmp_path / "pictures", run=tmp_path / "run", weights=str(real_weights), tune="head", device="cpu"
    )
    test = tmp_path / "pictures" / "test"
    learned = package.explain(run, test, nearest=0, output=tmp_path / "maps")
    shutil.copytree(run.path, tmp_path / "random")
    forget(tmp_path / "random")
    random = package.explain(tmp_path / "random", test, nearest=0, output=tmp_path / "others")
    assert all(found.warnings for found in random)
    assert max(found.trust or 0 for found in random) < 0.3
    assert np.mean([found.trust for found in learned]) > 0.3
    assert sum(bool(found.warnings) for found in learned) <= len(learned) / 2


# The same answer and the same map


@pytest.mark.usefixtures("same_cache")
def test_explain_gives_predict_s_probability_and_the_same_bytes_in_any_company(
    run: Path, explainer: Explainer, one: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.png"
    make_square(other, "red", seed=1001)
    (alone,) = package.explain(run, one, nearest=0, output=tmp_path / "a")
    together = [found for found, _ in explainer.explain([other, one])]
    assert Path(alone.map or "").read_bytes() == Path(together[1].map or "").read_bytes()
    assert (alone.trust, alone.checks, alone.boxes) == (together[1].trust, together[1].checks, together[1].boxes)
    (answer,) = open_model(run).predict([one])
    assert (alone.label, alone.answer) == (answer.label, answer.label)
    assert alone.probability == pytest.approx(answer.probability, abs=1e-5)
    assert alone.seen == 1


def test_explain_another_class_is_another_map_with_its_own_probability(explainer: Explainer, one: Path) -> None:
    asked = dataclasses.replace(explainer, wanted=dataclasses.replace(explainer.wanted, label="red"))
    ((own, _),), ((other, _),) = (list(each.explain([one])) for each in (explainer, asked))
    assert (own.label, other.label, other.answer) == ("green", "red", "green")
    assert (other.probability or 0) < (own.probability or 0)
    assert own.map != other.map
    assert Path(own.map or "").read_bytes() != Path(other.map or "").read_bytes()


@pytest.mark.usefixtures("same_cache")
def test_explain_of_turned_pictures_is_that_of_the_upright_one(explainer: Explainer, tmp_path: Path) -> None:
    upright = tmp_path / "upright.png"
    make_square(upright, "blue", seed=7, size=(240, 120))
    paths = [upright]
    for number, turn in TURNS.items():
        exif = Image.Exif()
        exif[ORIENTATION] = number
        paths.append(tmp_path / f"turned{number}.png")
        Image.open(upright).transpose(turn).save(paths[-1], exif=exif)
    found = [explanation for explanation, _ in explainer.explain(paths)]
    for each in found:
        assert each.boxes == found[0].boxes
        with Image.open(each.map or "") as image:
            assert image.size == (384, 192)
    assert all(box.right <= 240 and box.bottom <= 120 for box in found[0].boxes)
    contents = {Path(each.map or "").read_bytes() for each in found}
    assert len(contents) == 1


# Names and places


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.usefixtures("same_cache")
def test_explain_any_names_are_escaped_unique_and_leave_the_pictures_alone(
    explainer: Explainer, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    names = [
        "line\nbreak.png",
        "🌱.png",
        "<script>x</script>.png",
        "=cmd().png",
        "ü" * 125 + ".png",
        "a/same.png",
        "b/same.png",
        "bell\x07.png",
    ]
    for number, name in enumerate(names):
        make_square(pictures / name, "red", seed=number)
    before = state_of(pictures)
    found = finish(explain_files(explainer, list(picture_files([pictures]))))
    assert state_of(pictures) == before
    maps = [Path(each.map or "") for each in found]
    assert len({*maps}) == len(names)
    for path in maps:
        assert path.parent == tmp_path / "maps"
        assert re.fullmatch(r"[\w.-]+-[0-9a-f]{12}\.jpg", path.name)
        assert len(path.name.encode()) <= 255
        Image.open(path).verify()
    source = (tmp_path / "maps" / "explain.html").read_text("utf-8")
    page = Page(source)
    assert page.named("script") == []
    assert page.open == []
    assert "default-src 'none'" in source
    assert not re.search(r"https?:|url\(|@import", source)
    assert "line\\nbreak.png" in page.text
    assert len([image for image in page.named("img") if image.get("class") == "map"]) == len(names)


def test_map_name_of_any_path_is_a_plain_name_of_its_own() -> None:
    names = [
        map_name(Path(path), None) for path in ("a/x.jpg", "b/x.jpg", "a/x.png", "..jpg", "CON", "\udcff.jpg", "." * 9)
    ]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[\w.-]+-[0-9a-f]{12}\.jpg", name)
        assert not name.startswith((".", "-"))
        name.encode("utf-8")
    assert map_name(Path("a/x.jpg"), None) == names[0]
    assert map_name(Path("a/x.jpg"), "b") != names[0]


@pytest.mark.usefixtures("same_cache")
def test_explain_refuses_to_write_among_pictures(run: Path, one: Path, tmp_path: Path) -> None:
    for pictures, output in (
        ((one,), tmp_path),
        ((tmp_path,), tmp_path / "maps"),
        ((one,), run.parent / "squares" / "maps"),
    ):
        with pytest.raises(SettingsError, match=r"lies among the pictures in .*, where nothing is ever written"):
            package.explain(run, *pictures, nearest=0, output=output)
        assert not (output / "explain.html").exists()
    (tmp_path / "maps").write_text("in the way")
    with pytest.raises(SettingsError, match=r"The output .* cannot be made"):
        package.explain(run, one, nearest=0, output=tmp_path / "maps" / "deeper")


# What goes wrong


@pytest.mark.usefixtures("same_cache")
def test_explain_goes_on_past_bad_pictures(run: Path, one: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    said = foldertune("explain", run, bad, one, tmp_path / "none.png", "--json", "--output", tmp_path / "maps")
    assert said.code == 0
    found = said.document["explanations"]
    assert [each.get("error") for each in found] == [
        "not a picture, or damaged at its beginning",
        None,
        "the file is not there",
    ]
    assert list(found[0]) == ["path", "error"]
    assert list(found[1]) == [key for key in Explanation.__annotations__ if key != "error"]
    assert "2 of 3 files could not be explained." in said.err
    assert len(found[1]["nearest"]) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out := io.StringIO())
        patch.setattr("sys.stderr", err := io.StringIO())
        assert command(run, bad, nearest=0, output=tmp_path / "maps") == 3
    assert out.getvalue() == ""
    assert f"{bad}: not a picture" in err.getvalue()


@pytest.mark.usefixtures("same_cache")
def test_explain_refused_says_what_is_accepted(run: Path, one: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"knows no class 'pink'. Accepted: blue, green, red\."):
        package.explain(run, one, label="pink")
    with pytest.raises(SettingsError, match=r"Nearest is -1\. Accepted: 0 and more"):
        package.explain(run, one, nearest=-1)
    with pytest.raises(DataError, match="There is no picture in nothing"):
        package.explain(run)
    assert "There is no run" in foldertune("explain", tmp_path / "no-run", one).refused(4)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run, unfinished)
    facts = (unfinished / "run.json").read_text("utf-8").replace('"finished"', '"started"')
    (unfinished / "run.json").write_text(facts, "utf-8")
    told = foldertune("explain", unfinished, one).refused(3)
    assert (
        "is not finished, so its model is not the one that will be kept. Go on with `foldertune train --resume" in told
    )
    (run_without_model := tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match="holds no model"):
        package.explain(run_without_model, one)
    assert not (run / "explanations").exists()


# The nearest training pictures


def told_by(run: Path, num_asked: list[int], text: list[str]) -> Any:
    """The album of a run; each making of an engine is counted, and what is told is kept."""
    saved = read_saved_model(run)

    def make() -> Any:
        num_asked.append(1)
        return opened(run, run.parent / "unused").predictor.engine  # of logits: as good as any here

    steps = open_album(saved, make)
    while True:
        try:
            told = next(steps)
        except StopIteration as stopped:
            return stopped.value
        text.append(str(getattr(told, "facts", {}).get("text", "")))


@pytest.mark.usefixtures("same_cache")
def test_nearest_are_of_the_same_colour_without_the_picture_itself(run: Path, one: Path, tmp_path: Path) -> None:
    known = sorted((run.parent / "squares" / "blue").iterdir())
    found = package.load(run).explain(one, *known[:4], output=tmp_path / "maps", nearest=2)
    assert [near.label for near in found[0].nearest] == ["green", "green"]
    for each in found:
        similar = [near.similarity for near in each.nearest]
        assert len(similar) == 2
        assert similar == sorted(similar, reverse=True)
        assert all(-1 <= value < 1 for value in similar)
        assert Path(each.path).name not in {Path(near.path).name for near in each.nearest if near.label == "blue"}
    learned = [each for each in found if "The network has learned from this very picture." in each.warnings]
    assert 1 <= len(learned) <= 4
    assert found[0] not in learned


def test_nearest_are_computed_once_and_gone_pictures_are_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(run.parent / "squares", tmp_path / "squares")
    moved = tmp_path / "run"
    facts = (moved / "run.json").read_text("utf-8").replace(str(run.parent / "squares"), str(tmp_path / "squares"))
    (moved / "run.json").write_text(facts, "utf-8")
    monkeypatch.setattr("foldertune.explanation.nearest._num_features", lambda saved: 3)
    gone = sorted((tmp_path / "squares" / "red").iterdir())
    gone[0].unlink()
    gone[1].write_bytes(picture_bytes(9))
    asked, told = list[int](), list[str]()
    album = told_by(moved, asked, told)
    (warning,) = [text for text in told if "gone or have changed" in text]
    num_gone = int(warning.split()[0])  # those of the two that train had
    assert 1 <= num_gone <= 2
    assert "They are not compared." in warning
    assert len(album.pictures) == len(album.directions)
    np.testing.assert_allclose(np.linalg.norm(album.directions, axis=1), 1, atol=1e-5)
    again = told_by(moved, asked, told)
    assert len(asked) == 1
    np.testing.assert_array_equal(again.directions, album.directions)
    near = album.pictures[0]
    (tmp_path / "squares" / near.path).unlink()
    (first,) = again.nearest(album.directions[0] * 7, "", 1)
    assert (first.path, first.note) == (near.path, "its file is gone or has changed")
    assert again.thumbnail(near.path) == b""
    assert Image.open(io.BytesIO(again.thumbnail(album.pictures[1].path))).size == (PICTURE_PX, PICTURE_PX)


@pytest.mark.usefixtures("same_cache")
def test_explain_of_a_model_without_its_run_goes_without_neighbours(run: Path, one: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copy(run / name, tmp_path / "model" / name)
    found = list(explaining(tmp_path / "model", one))
    told = [each.facts["text"] for each in found if isinstance(each, Event) and each.kind == "note"]
    assert "is a model without its run, so there are no training pictures to compare with" in told[0]
    assert (tmp_path / "model" / "explanations" / "explain.html").exists()


# The page


@pytest.mark.usefixtures("same_cache")
def test_page_shows_everything_of_each_picture(explainer: Explainer, one: Path, tmp_path: Path) -> None:
    found = finish(explain_files(explainer, [one, tmp_path / "none.png"]))
    page = Page((tmp_path / "maps" / "explain.html").read_text("utf-8"))
    first = found[0]
    expected = [
        str(one), "green", f"{first.trust:.2f}", "Grad-CAM", "Selvaraju et al. 2017", "the file is not there", "1 not explained",
        *(near.path for near in first.nearest), *(f"{near.similarity:.3f}" for near in first.nearest), *first.warnings,
        *(f"{box.left}, {box.top}" for box in first.boxes),
    ]  # fmt: skip
    assert [piece for piece in expected if piece not in page.text] == []
    assert len(page.named("img")) == 4
    assert all(image["alt"] for image in page.named("img"))
