"""The real download code against a server that plays the hub: what arrives, and how an interrupted download goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import (
    CONTENT,
    CUT,
    KNOWN,
    PIECE_BYTES,
    SHA256,
    STALL,
    HubServer,
    blobs,
    blobs_folder,
    hub_of_a_test,
    hub_serving,
    refusal,
)
from huggingface_hub import constants

from foldertune.errors import DataError, MissingError
from foldertune.models import hub


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


# It works


def test_fetch_the_first_time_downloads_once_and_then_needs_no_hub(server: HubServer) -> None:
    fetched = hub.fetch(KNOWN)
    assert fetched.path.read_bytes() == CONTENT
    assert (fetched.sha256, fetched.notes) == (SHA256, ())
    assert server.count("GET") == 1
    before = list(server.seen)
    assert hub.fetch(KNOWN) == fetched
    assert server.seen == before


def test_fetch_leaves_the_cache_as_huggingface_hub_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = hub.fetch(KNOWN)
    assert [path.name for path in blobs(tmp_path)] == [SHA256]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert huggingface_hub.hf_hub_download(KNOWN.repository, hub.FILE) == str(fetched.path)


def test_fetch_takes_what_huggingface_hub_has_downloaded(server: HubServer) -> None:
    path = huggingface_hub.hf_hub_download(KNOWN.repository, hub.FILE)
    before = list(server.seen)
    assert hub.fetch(KNOWN).path == Path(path)
    assert server.seen == before


def test_fetch_that_may_not_download_takes_what_is_here_and_asks_no_hub(server: HubServer) -> None:
    with pytest.raises(MissingError, match="they are not on this machine yet"):
        hub.fetch(KNOWN, download=False)
    assert not server.seen
    fetched = hub.fetch(KNOWN)
    before = list(server.seen)
    assert hub.fetch(KNOWN, download=False) == fetched
    assert server.seen == before


def test_fetch_by_hand_needs_no_hub(server: HubServer) -> None:
    hub.weights_folder().mkdir(parents=True)
    placed = hub.weights_folder() / "tiny.test_in1k.safetensors"
    placed.write_bytes(CONTENT)
    assert hub.fetch(KNOWN) == hub.Fetched(placed, SHA256)
    assert not server.seen


def test_fetch_from_another_host_sends_no_token_there(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with hub_serving(CONTENT) as storage:
        server.storage = storage.address.replace("127.0.0.1", "localhost")
        assert hub.fetch(KNOWN).path.read_bytes() == CONTENT
        assert storage.count("GET") == 1
        assert all("authorization" not in headers for _, headers in storage.seen)
    assert {headers.get("authorization") for _, headers in server.seen} == {"Bearer hf_secret"}


def test_fetch_without_a_token_sends_none(server: HubServer) -> None:
    hub.fetch(KNOWN)
    assert all("authorization" not in headers for _, headers in server.seen)


# Interrupted downloads go on


def test_fetch_of_a_truncated_file_resumes_where_it_was_cut(server: HubServer) -> None:
    server.faults["GET"] = [CUT, CUT]
    assert hub.fetch(KNOWN).path.read_bytes() == CONTENT
    assert len(CONTENT) == 80_080
    assert server.ranges_asked() == ["", "bytes=40000-", "bytes=60000-"]
    assert server.num_bytes_sent < len(CONTENT) + 2 * PIECE_BYTES


def test_fetch_goes_on_with_the_partial_file_of_an_earlier_run(server: HubServer, tmp_path: Path) -> None:
    partial = blobs_folder(tmp_path) / f"{SHA256}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:1000])
    assert hub.fetch(KNOWN).path.read_bytes() == CONTENT
    assert server.ranges_asked() == ["bytes=1000-"]
    assert [path.name for path in blobs(tmp_path)] == [SHA256]


@pytest.mark.parametrize("start", [CONTENT, CONTENT + b"more"], ids=["whole", "too long"])
def test_fetch_with_a_partial_file_of_full_length_ends_well(start: bytes, server: HubServer, tmp_path: Path) -> None:
    partial = blobs_folder(tmp_path) / f"{SHA256}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(start)
    assert hub.fetch(KNOWN).path.read_bytes() == CONTENT
    assert server.ranges_asked() == ([] if start == CONTENT else [""])


def test_fetch_from_a_hub_that_ignores_ranges_starts_over(server: HubServer) -> None:
    server.ranges = False
    server.faults["GET"] = [CUT]
    assert hub.fetch(KNOWN).path.read_bytes() == CONTENT
    assert server.num_bytes_sent == len(CONTENT) // 2 + len(CONTENT)


def test_fetch_with_a_partial_file_of_other_content_is_not_kept(tmp_path: Path) -> None:
    partial = blobs_folder(tmp_path) / f"{SHA256}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 1000)
    assert "was not kept" in refusal(DataError)
    assert not blobs(tmp_path)
    assert hub.fetch(KNOWN).path.read_bytes() == CONTENT


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_fetch_after_503_twice_succeeds(method: str, server: HubServer, pauses: list[float]) -> None:
    server.faults[method] = [503, 503]
    fetched = hub.fetch(KNOWN)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.notes == ()
    assert pauses == [1.0, 2.0]


def test_fetch_with_503_after_the_file_arrived_does_not_fetch_it_again(server: HubServer) -> None:
    attempts = iter([200])
    server.faults["HEAD"] = []
    original = hub._continue_partial

    def then_trouble(*arguments: object) -> None:
        original(*arguments)  # type: ignore[arg-type]
        if next(attempts, None):
            server.faults["HEAD"] = [503] * 8

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "_continue_partial", then_trouble)
        assert hub.fetch(KNOWN).path.read_bytes() == CONTENT
    assert server.count("GET") == 1


def test_fetch_that_is_always_cut_gives_up_and_keeps_the_beginning(server: HubServer, tmp_path: Path) -> None:
    server.faults["GET"] = [CUT] * 200
    assert "the download failed" in refusal(MissingError)
    (partial,) = blobs(tmp_path)
    num_bytes = partial.stat().st_size
    assert num_bytes > len(CONTENT) / 2
    assert partial.read_bytes() == CONTENT[:num_bytes]
    server.faults["GET"].clear()
    assert hub.fetch(KNOWN).path.read_bytes() == CONTENT
    assert server.ranges_asked()[-1] == f"bytes={num_bytes}-"


# The hub's environment variables, in a process of its own


PROGRAM = f"""
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 1000
from foldertune.models import hub
from foldertune.models.published import WeightsFacts
from foldertune.preprocess import Preprocess
print(hub.fetch(WeightsFacts("tiny.test_in1k", "someone/tiny.test_in1k", "MIT", 0.08, {SHA256!r}, Preprocess())).path)
"""


@pytest.fixture
def start(server: HubServer, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    def run(**variables: str) -> subprocess.Popen[str]:
        ours = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_secret"}
        environment = {**os.environ, **ours, **variables}
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=pipe, stderr=pipe, text=True)

    return run


def test_fetch_killed_halfway_goes_on_in_the_next_process(
    server: HubServer, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    server.faults["GET"] = [STALL]
    with start() as killed:
        assert server.stalled.wait(60)
        (partial,) = (tmp_path / "home").rglob("*.incomplete")
        deadline = time.monotonic() + 30
        while partial.stat().st_size == 0 and time.monotonic() < deadline:
            server.released.wait(0.01)
        killed.kill()
    num_bytes = partial.stat().st_size
    assert 0 < num_bytes < len(CONTENT)
    with start() as second:
        out, _ = second.communicate(timeout=60)
    assert Path(out.strip()).read_bytes() == CONTENT
    assert (tmp_path / "home") in Path(out.strip()).parents
    assert server.ranges_asked() == ["", f"bytes={num_bytes}-"]
    assert {headers["authorization"] for _, headers in server.seen} == {"Bearer hf_secret"}
    before = list(server.seen)
    with start(HF_HUB_OFFLINE="1") as third:
        assert third.communicate(timeout=60)[0] == out
    assert server.seen == before
