"""What fetch refuses, and how it says so: wrong content, hashes that changed, a hub that refuses or is not there."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hub_server import (
    CONTENT,
    KNOWN,
    OTHER,
    SHA256,
    UNKNOWN,
    HubServer,
    blobs,
    closed_port,
    hub_of_a_test,
    point_to,
    refusal,
)
from huggingface_hub import constants

from foldertune.errors import DataError, MissingError, WorkFailedError
from foldertune.models import hub
from foldertune.models.weights import resolve_weights


@pytest.fixture(autouse=True)
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_of_a_test(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited, ours and the hub client's; nothing waits."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


# Content that is not what it must be


@pytest.mark.parametrize("etag", [hashlib.sha256(OTHER).hexdigest(), SHA256, "a-plain-etag"])
def test_fetch_of_a_wrong_hash_refuses_and_keeps_nothing(etag: str, server: HubServer, tmp_path: Path) -> None:
    server.content, server.etag = OTHER, etag
    message = refusal(DataError)
    assert SHA256 in message
    assert hashlib.sha256(OTHER).hexdigest() in message
    assert "--weights PATH" in message
    assert not blobs(tmp_path)
    assert not list(tmp_path.rglob("model.safetensors"))
    server.replace(CONTENT)
    assert hub.fetch(KNOWN).path.read_bytes() == CONTENT


def test_fetch_of_a_damaged_cache_fetches_again_and_says_so(server: HubServer) -> None:
    hub.fetch(KNOWN).path.resolve().write_bytes(OTHER)
    fetched = hub.fetch(KNOWN)
    assert fetched.path.read_bytes() == CONTENT
    assert len(fetched.notes) == 1
    assert "was damaged" in fetched.notes[0]
    assert server.count("GET") == 2


def test_fetch_of_a_wrong_file_by_hand_refuses_it(server: HubServer) -> None:
    hub.weights_folder().mkdir(parents=True)
    placed = hub.weights_folder() / "tiny.test_in1k.safetensors"
    placed.write_bytes(OTHER)
    message = refusal(DataError)
    assert str(placed) in message
    assert "Delete it and run again" in message
    assert placed.exists()
    assert not server.seen


def test_fetch_with_a_folder_in_the_file_s_place_refuses_it() -> None:
    (hub.weights_folder() / "tiny.test_in1k.safetensors").mkdir(parents=True)
    assert "cannot be read" in refusal(DataError)


@pytest.mark.parametrize("etag", ["../../../escaped", "a/b/c/d/e/f/g", None])
def test_fetch_from_what_is_no_hub_writes_nothing(etag: str | None, server: HubServer, tmp_path: Path) -> None:
    server.etag = etag
    message = refusal(MissingError)
    assert "what answered is not a hub; check HF_ENDPOINT" in message
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


# Hashes that this version does not know


def test_fetch_of_an_unknown_hash_records_it_loudly_and_checks_ever_after(server: HubServer) -> None:
    first = hub.fetch(UNKNOWN)
    record = hub.weights_folder() / "sha256.json"
    (sentence,) = first.notes
    assert all(part in sentence for part in ("not known", SHA256, str(record), "checked from now on"))
    assert json.loads(record.read_text()) == {"tiny.test_in1k": SHA256}
    assert hub.fetch(UNKNOWN).notes == ()
    first.path.resolve().write_bytes(OTHER)
    message = refusal(DataError, UNKNOWN)
    assert SHA256 in message
    assert f"If you trust the new file, remove the line tiny.test_in1k from {record}" in message


def test_fetch_of_an_unknown_hash_that_changed_on_the_hub_refuses_it(server: HubServer, tmp_path: Path) -> None:
    hub.fetch(UNKNOWN)
    shutil.rmtree(tmp_path / "hub")
    server.replace(OTHER)
    assert SHA256 in refusal(DataError, UNKNOWN)
    assert not blobs(tmp_path)


def test_fetch_of_an_unknown_hash_is_held_to_the_hub_s_own(server: HubServer, tmp_path: Path) -> None:
    server.content = OTHER  # under the name that says CONTENT
    assert "was not kept" in refusal(DataError, UNKNOWN)
    assert not blobs(tmp_path)
    assert not (hub.weights_folder() / "sha256.json").exists()


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\xff"])
def test_fetch_with_a_broken_record_says_so(text: str) -> None:
    hub.weights_folder().mkdir(parents=True)
    (hub.weights_folder() / "sha256.json").write_text(text, encoding="latin-1")
    assert "Mend it, or delete it" in refusal(DataError, UNKNOWN)


def test_fetch_of_an_unknown_hash_that_cannot_be_recorded_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: object) -> None:
        raise WorkFailedError(f"{path} could not be written: no space left.")

    monkeypatch.setattr(hub, "write_json", full)
    (sentence,) = hub.fetch(UNKNOWN).notes
    assert "could not be recorded" in sentence


# The hub refuses, or is not there


def check_ways(message: str, address: str) -> None:
    """What a person needs who cannot reach the hub: the address, the place, and the two other ways."""
    assert f"{address}/someone/tiny.test_in1k/resolve/main/model.safetensors" in message
    assert str(hub.weights_folder() / "tiny.test_in1k.safetensors") in message
    assert "--weights PATH" in message
    assert "--weights random" in message


@pytest.mark.parametrize(
    ("status", "says"), [(404, "404 (not found)"), (401, "a token is needed"), (403, "403 (forbidden)")]
)
def test_fetch_refused_by_the_hub_does_not_insist(
    status: int, says: str, server: HubServer, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.faults["HEAD"] = [status] * 9
    message = refusal(MissingError)
    assert says in message
    assert "hf_secret" not in message
    check_ways(message, server.address)
    assert server.count("HEAD") == 1
    assert not pauses


def test_fetch_with_503_for_ever_gives_up_and_says_how_to_go_on(server: HubServer, pauses: list[float]) -> None:
    server.faults["HEAD"] = [503] * 99
    message = refusal(MissingError)
    assert "the hub answered 503" in message
    check_ways(message, server.address)
    assert server.count("HEAD") == 4
    assert pauses == list(hub.PAUSES_S)


def test_fetch_without_a_network_names_the_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    address = closed_port()
    point_to(address, monkeypatch)
    with pytest.raises(MissingError) as raised:
        hub.fetch(KNOWN)
    assert raised.value.exit_code == 4
    assert "the hub cannot be reached" in str(raised.value)
    assert "\n" not in str(raised.value)
    check_ways(str(raised.value), address)


def test_fetch_without_a_network_works_once_the_file_is_put_in_the_named_place(monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(closed_port(), monkeypatch)
    message = refusal(MissingError)
    place = Path(message.partition("put it at ")[2].partition(", or pass")[0])
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert hub.fetch(KNOWN).path == place


def test_fetch_offline_asks_nothing(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = refusal(MissingError)
    assert "HF_HUB_OFFLINE forbids fetching them" in message
    check_ways(message, server.address)
    assert not server.seen


def test_fetch_offline_takes_the_cache_and_checks_it(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = hub.fetch(KNOWN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.fetch(KNOWN) == fetched
    fetched.path.resolve().write_bytes(OTHER)
    assert "so it is not used" in refusal(DataError)
    assert fetched.path.exists()


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_fetch_on_a_full_disk_says_how_much_is_needed(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 10, 0))
    assert "HF_HOME to a larger disk" in refusal(WorkFailedError)
    assert server.count("GET") == 0


def test_resolve_weights_imagenet_without_a_network_is_missing_never_random(monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(address := closed_port(), monkeypatch)
    with pytest.raises(MissingError, match=f"{address}/timm/resnet50.tv_in1k/resolve/main/model.safetensors"):
        resolve_weights("imagenet", "resnet50")
