"""A server on this machine's loopback that answers as the Hugging Face hub does, and misbehaves on request."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from foldertune.models import hub
from foldertune.models.published import WeightsFacts
from foldertune.preprocess import Preprocess

CONTENT = save({"fc.weight": np.arange(20_000, dtype="float32").reshape(20, 1000)})
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = CONTENT[:-1] + b"\x01"
KNOWN = WeightsFacts("tiny.test_in1k", "someone/tiny.test_in1k", "MIT", 0.08, SHA256, Preprocess())
UNKNOWN = replace(KNOWN, sha256=None)
PIECE_BYTES = 1000  # what arrives is written in pieces of this size
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CUT, STALL = "cut", "stall"  # send half and hang up; send half and wait to be released
Fault = int | str  # a status, CUT or STALL


class HubServer(ThreadingHTTPServer):
    """Serves `content` as /OWNER/NAME/resolve/REVISION/model.safetensors.

    faults: for each method, what to do wrong, one per request, before answering well.
    seen: (method, headers) of each request for the file so far; num_bytes_sent counts the bodies of the file alone.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.etag: str | None = hashlib.sha256(content).hexdigest()
        self.faults: defaultdict[str, list[Fault]] = defaultdict(list)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.storage = ""  # address of the server that the file is fetched from, where it is another one
        self.ranges = True
        self.num_bytes_sent = 0
        self.stalled, self.released = threading.Event(), threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def replace(self, content: bytes) -> None:
        self.content, self.etag = content, hashlib.sha256(content).hexdigest()

    def count(self, method: str) -> int:
        return sum(seen == method for seen, _ in self.seen)

    def ranges_asked(self) -> list[str]:
        """The Range header of each GET, "" where it asked for the whole file."""
        return [headers.get("range", "") for method, headers in self.seen if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        if self._answers():
            self._file(body=False)

    def do_GET(self) -> None:
        if self._answers():
            self._file(body=True)

    def _answers(self) -> bool:
        """Note the request; True where it is to be answered well (a fault in the body comes later)."""
        if not self.path.endswith("/model.safetensors"):
            self._refuse(404)  # the hub client asks for other things too, at most once a day
            return False
        self.server.seen.append((self.command, {name.lower(): value for name, value in self.headers.items()}))
        faults = self.server.faults[self.command]
        if faults and isinstance(faults[0], int):
            self._refuse(int(faults.pop(0)))
            return False
        return True

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, *, body: bool) -> None:
        server, start = self.server, 0
        asked = self.headers.get("Range", "")
        if server.ranges and asked:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            if start >= len(server.content):
                self._refuse(416)
                return
        self.send_response(302 if server.storage else 206 if start else 200)
        if server.etag is not None:
            self.send_header("X-Linked-Etag" if server.storage else "ETag", f'"{server.etag}"')
            self.send_header("X-Repo-Commit", COMMIT)
        if server.storage:
            self.send_header("X-Linked-Size", str(len(server.content)))
            self.send_header("Location", f"{server.storage}/stored/model.safetensors")
        elif start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        rest = b"" if server.storage else server.content[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if body and rest:
            self._send(rest)

    def _send(self, rest: bytes) -> None:
        server, faults = self.server, self.server.faults["GET"]
        fault = faults.pop(0) if faults else None
        sent = rest if fault is None else rest[: len(rest) // 2]
        self.wfile.write(sent)
        self.wfile.flush()
        server.num_bytes_sent += len(sent)
        if fault == STALL:
            server.stalled.set()
            server.released.wait(60)
        self.close_connection = fault is not None

    def log_message(self, format: str, *args: object) -> None:
        """Tests look at `seen` instead."""


@contextmanager
def hub_serving(content: bytes) -> Iterator[HubServer]:
    """A running hub; it has stopped when the context ends."""
    with HubServer(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


@contextmanager
def hub_of_a_test(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that serves CONTENT, and empty caches in `folder`; no token and no proxy of whoever runs the tests."""
    monkeypatch.setenv("FOLDERTUNE_CACHE", str(folder / "ours"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(folder / "harnesses"), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", PIECE_BYTES)
    huggingface_hub.close_session()
    with hub_serving(CONTENT) as server:
        point_to(server.address, monkeypatch)
        yield server
    huggingface_hub.close_session()


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does when huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


def closed_port() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def blobs_folder(folder: Path) -> Path:
    return folder / "hub" / "models--someone--tiny.test_in1k" / "blobs"


def blobs(folder: Path) -> list[Path]:
    """Files of the hub's cache that hold, or begin to hold, a weights file."""
    return sorted(path for path in blobs_folder(folder).glob("*") if path.suffix != ".lock")


def refusal(kind: type[Exception], facts: WeightsFacts = KNOWN) -> str:
    """The one line with which fetch ends."""
    with pytest.raises(kind) as raised:
        hub.fetch(facts)
    assert "\n" not in str(raised.value)
    return str(raised.value)
