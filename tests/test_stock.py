"""Records of pictures, found in whatever pack they lie: only what is new is made, and nothing is mixed up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldertune.cache import clear
from foldertune.data.pack import Pack, Packing
from foldertune.data.stock import GatheredPack, Ware, names_of, numbers_of, one_after_another, stocked
from foldertune.errors import WorkFailedError
from foldertune.records import Picture, Work, finish

WARE = Ware("things", (2,), np.int64, {"way": 1})


class Maker:
    """Makes (length of the name, its number), and remembers what it was asked for."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.asked = names, list[str]()

    def __call__(self, places: Sequence[int], packing: Packing) -> Work[None]:
        for place in places[packing.num_done :]:
            self.asked.append(self.names[place])
            packing.append(record_of(self.names[place])[None])
            yield from packing.told("things")


def record_of(name: str) -> np.ndarray:
    return np.array([len(name), int(name, 36)])


def stock(cache: Path, names: Sequence[str], ware: Ware = WARE) -> tuple[Pack, list[str]]:
    """The pack, proved to hold what it should, and what had to be made for it."""
    maker = Maker(names)
    pack = finish(stocked(cache, ware, names, maker))
    expected = np.array([record_of(name) for name in names]).reshape(-1, 2)
    assert pack.num_records == len(names)
    np.testing.assert_array_equal(pack.read_all(), expected)
    np.testing.assert_array_equal(pack.read(np.arange(len(names))[::-1]), expected[::-1])
    return pack, maker.asked


def test_stocked_makes_everything_once(tmp_path: Path) -> None:
    assert stock(tmp_path, "abc")[1] == list("abc")
    pack, asked = stock(tmp_path, "abc")
    assert asked == []
    assert type(pack) is Pack  # one file in the wanted order needs no detour


def test_stocked_makes_what_is_new_and_reads_the_rest_from_where_it_lies(tmp_path: Path) -> None:
    stock(tmp_path, "abc")
    assert stock(tmp_path, "xaycb")[1] == list("xy")
    pack, asked = stock(tmp_path, "byx")
    assert asked == []
    assert isinstance(pack, GatheredPack)
    assert len(list(tmp_path.glob("*.pack"))) == 2


def test_stocked_makes_a_name_that_is_there_twice_once(tmp_path: Path) -> None:
    assert stock(tmp_path, "abaab")[1] == list("ab")


def test_stocked_nothing_is_an_empty_pack(tmp_path: Path) -> None:
    assert stock(tmp_path, "")[0].num_records == 0


@pytest.mark.parametrize(
    "other",
    [
        Ware("other", (2,), np.int64, {"way": 1}),
        Ware("things", (2,), np.uint64, {"way": 1}),
        Ware("things", (2,), np.int64, {"way": 2}),
    ],
)
def test_stocked_of_another_ware_is_made(other: Ware, tmp_path: Path) -> None:
    stock(tmp_path, "abc")
    assert stock(tmp_path, "abc", other)[1] == list("abc")
    assert stock(tmp_path, "abc")[1] == []


def test_stocked_of_another_shape_leaves_the_first_one_alone(tmp_path: Path) -> None:
    stock(tmp_path, "abc")
    wide = Ware(WARE.kind, (3,), WARE.dtype, WARE.depends_on)

    def make(places: Sequence[int], packing: Packing) -> Work[None]:
        packing.append(np.zeros((len(places), 3)))
        yield from ()

    assert finish(stocked(tmp_path, wide, "abc", make)).shape == (3,)
    assert stock(tmp_path, "abc")[1] == []


def test_stocked_after_pictures_are_read_in_another_way_makes_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock(tmp_path, "abc")
    for module in ("stock", "pack"):
        monkeypatch.setattr(f"foldertune.data.{module}.READING", 1_000)
    assert stock(tmp_path, "abc")[1] == list("abc")


def test_stocked_of_a_list_that_grew_forty_times_opens_few_files(tmp_path: Path) -> None:
    """Each growth leaves a pack; before they become too many, those that hold least are made again as one."""
    for count in range(1, 41):
        pack, asked = stock(tmp_path, [np.base_repr(number, 36).lower() for number in range(count)])
        assert not isinstance(pack, GatheredPack) or len(pack.parts) <= 17
        assert len(asked) <= count // 16 + 2


def test_stocked_after_a_pack_was_deleted_makes_only_what_lay_in_it(tmp_path: Path) -> None:
    first, _ = stock(tmp_path, "abc")
    stock(tmp_path, "abcxy")
    first.path.unlink()
    assert stock(tmp_path, "abcxy")[1] == list("abc")


def test_stocked_after_all_was_cleared_makes_everything(tmp_path: Path) -> None:
    stock(tmp_path, "abc")  # nobody holds the pack any more
    clear(tmp_path)
    assert stock(tmp_path, "abc")[1] == list("abc")


def test_stocked_without_its_note_finds_the_same_list_and_makes_others(tmp_path: Path) -> None:
    stock(tmp_path, "abc")
    for note in tmp_path.glob("stock-*.json"):
        note.unlink()
    assert stock(tmp_path, "abc")[1] == []
    assert stock(tmp_path, "abcd")[1] == ["d"]  # it was noted again


@pytest.mark.parametrize("content", ["", "0\nnothing", "{}"])
def test_stocked_with_a_damaged_note_is_never_wrong(content: str, tmp_path: Path) -> None:
    stock(tmp_path, "abc")
    (note,) = tmp_path.glob("stock-*.json")
    note.write_text(content)
    assert stock(tmp_path, "cabd")[1] == list("cabd")


def test_stocked_after_a_kill_goes_on_where_it_was(tmp_path: Path) -> None:
    stock(tmp_path, "ab")
    maker = Maker("xaby")
    steps = stocked(tmp_path, WARE, "xaby", maker)
    next(steps)
    steps.close()
    assert maker.asked == ["x"]
    assert stock(tmp_path, "xaby")[1] == ["y"]


def test_stocked_damage_in_one_pack_is_refused_and_made_again(tmp_path: Path) -> None:
    """Also where the record is not one of those that are looked at when the pack is found."""
    names = [np.base_repr(number, 36).lower() for number in range(200)]
    first, _ = stock(tmp_path, names)
    both = finish(stocked(tmp_path, WARE, ["zzz", *names], Maker(["zzz", *names])))
    content = bytearray(first.path.read_bytes())
    content[first.frames.offset(1) + 3] ^= 1
    first.path.write_bytes(content)
    with pytest.raises(WorkFailedError, match="is not what was written"):
        both.read_all()
    assert len(stock(tmp_path, ["zzz", *names])[1]) == 200


def test_stocked_where_the_cache_takes_nothing_is_in_memory_and_not_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock(tmp_path, "abc")
    monkeypatch.setattr("foldertune.data.pack.make_room", lambda *_: False)
    assert stock(tmp_path, "abcxy")[1] == list("xy")
    assert stock(tmp_path, "abcxy")[1] == list("xy")


@settings(max_examples=30)
@given(st.lists(st.text("abcdefgh", min_size=1, max_size=1), max_size=9).flatmap(st.permutations), st.data())
def test_stocked_lists_of_any_kind_in_any_order_hold_what_they_should(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    cache, known = tmp_path_factory.mktemp("cache"), set[str]()
    for _ in range(3):
        chosen = data.draw(st.lists(st.sampled_from("abcdefgh"), max_size=9)) + names[:2]
        _, asked = stock(cache, chosen)
        assert set(asked) == set(chosen) - known
        known |= set(chosen)


def test_one_after_another_of_packs(tmp_path: Path) -> None:
    packs = [stock(tmp_path, "abc")[0], stock(tmp_path, "cab")[0]]
    found = one_after_another(packs)
    np.testing.assert_array_equal(found.read_all(), np.concatenate([pack.read_all() for pack in packs]))
    assert one_after_another(packs[:1]) is packs[0]


def test_names_are_hashes_or_places() -> None:
    assert names_of([Picture(0, "a.png", "x", sha256="ab"), Picture(1, "b.png", "x")]) == ["ab", "1 b.png"]


def test_numbers_depend_on_the_picture_alone_and_copies_count_on() -> None:
    one, other = (Picture(0, "a.png", "x", sha256=f"{start}{'0' * 56}") for start in ("000000ff", "ffffffff"))
    assert numbers_of([one, other]) == [255, 2**32 - 1]
    assert numbers_of([other, one]) == [2**32 - 1, 255]
    assert numbers_of([one, one, other, other]) == [255, 256, 2**32 - 1, 0]
    assert numbers_of([Picture(7, "a.png", "x"), Picture(8, "b.png", "x")]) == [7, 8]
