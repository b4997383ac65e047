"""Published weights on this machine: from our own folder, the hub's cache, or the hub itself; checked in every case.

All traffic goes through huggingface_hub, so its cache, HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN and its progress bar
work as its users know them. One thing is done here: huggingface_hub 2 throws away what an interrupted process had
fetched, so the partial file is kept in its cache under a fixed name and continued by the next run.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foldertune.cache import cache_folder
from foldertune.errors import DataError, MissingError, WorkFailedError
from foldertune.models.published import WeightsFacts
from foldertune.run import write_json

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

FILE = "model.safetensors"
PAUSES_S = (1.0, 2.0, 4.0)  # between attempts, when the hub says that the trouble will pass
PASSING_STATUS = (408, 416, 429, 500, 502, 503, 504)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{8,128}")  # an etag becomes a file name, so nothing else is believed


@dataclass(frozen=True, slots=True)
class Fetched:
    """A weights file on this machine, its sha256, and sentences to say loudly."""

    path: Path
    sha256: str
    notes: tuple[str, ...] = ()


def weights_folder() -> Path:
    """Where weights can be put by hand, as TAG.safetensors, and where first-seen hashes are recorded."""
    return cache_folder() / "weights"


def sha256_of(path: Path) -> str:
    """The hash as 64 hexadecimal digits. Raises DataError for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}. Mend its permissions, or move it."
        ) from error


def fetch(facts: WeightsFacts, *, download: bool = True) -> Fetched:
    """The weights file, downloaded where it is not here yet and may be.

    Raises MissingError where it cannot be had (no network, offline switch, the hub refuses), with the address, the
    place to put it and the two other ways; DataError where its content is wrong; WorkFailedError for a full disk.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    expected, notes = facts.sha256 or _record().get(facts.tag), []
    placed, cached = weights_folder() / f"{facts.tag}.safetensors", try_to_load_from_cache(facts.repository, FILE)
    here = placed if placed.exists() else Path(cached) if isinstance(cached, str) else None
    if here is not None:
        found = sha256_of(here)
        if expected in (None, found):
            return Fetched(here, found, _noted(facts, found, expected))
        if here == placed or facts.sha256 is None or constants.HF_HUB_OFFLINE:
            raise DataError(_wrong(facts, here, found, expected))
        here.resolve().unlink()
        notes.append(f"The cached file of {facts.tag} was damaged (sha256 {found[:12]}…) and was fetched again.")
    if constants.HF_HUB_OFFLINE or not download:
        why = "HF_HUB_OFFLINE forbids fetching them" if download else "they are not on this machine yet"
        raise MissingError(_missing(facts, why))
    path, found = _download(facts, expected)
    return Fetched(path, found, (*notes, *_noted(facts, found, expected)))


def _download(facts: WeightsFacts, expected: str | None) -> tuple[Path, str]:
    """Try until it works, the trouble will not pass, or patience ends."""
    from huggingface_hub import get_session
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # The hub client speaks httpx or httpx2, by its version; its family of errors is found through its session.
    transport_error: type[Exception] = sys.modules[type(get_session()).__module__.partition(".")[0]].TransportError
    for pause_s in (*PAUSES_S, None):
        try:
            return _attempt(facts, expected)
        except (HfHubHTTPError, OSError, transport_error) as error:
            answered = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
            status = answered.response.status_code if isinstance(answered, HfHubHTTPError) else None
            will_pass = status in PASSING_STATUS or (status is None and "Consistency check" in str(error))
            if pause_s is None or not will_pass:
                failed = "the hub cannot be reached" if "Connect" in type(error).__name__ else "the download failed"
                raise MissingError(_missing(facts, _why(error, status, failed))) from error
            time.sleep(pause_s)
    raise AssertionError("the last attempt returns or raises")


def _attempt(facts: WeightsFacts, expected: str | None) -> tuple[Path, str]:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # its stubs forget to export it

    head = get_hf_file_metadata(hf_hub_url(facts.repository, FILE))
    if not (head.etag and head.commit_hash and _PLAIN_NAME.fullmatch(head.etag)):
        raise OSError("what answered is not a hub; check HF_ENDPOINT and proxies")
    if expected is None and re.fullmatch("[0-9a-f]{64}", head.etag):
        expected = head.etag  # the hub names large files by their sha256
    repository = repo_folder_name(repo_id=facts.repository, repo_type="model")
    blob = Path(constants.HF_HUB_CACHE) / repository / "blobs" / head.etag
    blob.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(blob.with_name(f"{head.etag}.lock")):
        if not blob.exists():
            _continue_partial(facts, head, partial := blob.with_name(f"{head.etag}.incomplete"))
            found = sha256_of(partial)
            if expected not in (None, found):
                partial.unlink()
                raise DataError(_not_kept(facts, found, expected))
            partial.replace(blob)
    path = Path(hf_hub_download(facts.repository, FILE))  # finds the blob, so it only writes the cache's own pointers
    found = sha256_of(path)
    if expected not in (None, found):
        path.resolve().unlink()
        raise DataError(_not_kept(facts, found, expected))
    return path, found


def _continue_partial(facts: WeightsFacts, head: HfFileMetadata, partial: Path) -> None:
    """Fetch what is missing of `partial`, which may exist from an interrupted run."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # its stubs forget to export it

    num_bytes = partial.stat().st_size if partial.exists() else 0
    if head.size is not None and num_bytes > head.size:
        partial.unlink()
        num_bytes = 0
    free = shutil.disk_usage(partial.parent).free
    if head.size is not None and head.size - num_bytes > free:
        raise WorkFailedError(
            f"The weights {facts.tag} need {(head.size - num_bytes) / 1e6:,.0f} MB more in {partial.parent}, "
            f"where {free / 1e6:,.0f} MB are free. Free space there, or set HF_HOME to a larger disk."
        )
    url = hf_hub_url(facts.repository, FILE, revision=head.commit_hash)
    try:
        with partial.open("ab") as file:
            http_get(
                url,
                file,
                resume_size=num_bytes,
                headers=build_hf_headers(),
                expected_size=head.size,
                displayed_filename=facts.tag,
            )
    except HfHubHTTPError as error:
        if error.response.status_code == 416:  # what is here is no beginning of what is there
            partial.unlink(missing_ok=True)
        raise


def _record_path() -> Path:
    return weights_folder() / "sha256.json"


def _record() -> dict[str, str]:
    """Hashes seen at first downloads, by tag."""
    try:
        content = json.loads(_record_path().read_text(encoding="utf-8"))
        return {str(tag): str(value) for tag, value in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"The record of hashes {_record_path()} cannot be read ({error}). Mend it, or delete it."
        ) from error


def _noted(facts: WeightsFacts, found: str, expected: str | None) -> tuple[str, ...]:
    """Record a hash seen for the first time; the sentence that says so."""
    if expected is not None:
        return ()
    sentence = f"The sha256 of {facts.tag} is not known to this version of Foldertune; the file's is {found}."
    try:
        _record_path().parent.mkdir(parents=True, exist_ok=True)
        write_json(_record_path(), {**_record(), facts.tag: found})
    except (OSError, WorkFailedError):
        return (f"{sentence} It could not be recorded in {_record_path()}, so later runs cannot check it.",)
    return (f"{sentence} It was recorded in {_record_path()} and is checked from now on.",)


def _wrong(facts: WeightsFacts, path: Path, found: str, expected: str | None) -> str:
    trusted = "" if facts.sha256 else f" If you trust the new file, remove the line {facts.tag} from {_record_path()}."
    return (
        f"{path} is not {facts.tag} as it must be (sha256 {found}, expected {expected}), so it is not used. "
        f"Delete it and run again with a network.{trusted}"
    )


def _not_kept(facts: WeightsFacts, found: str, expected: str | None) -> str:
    return (
        f"What was downloaded for {facts.tag} is not the file it must be (sha256 {found}, expected {expected}), so it "
        "was not kept. Try again on another network, or pass a file that you trust with --weights PATH."
    )


def _missing(facts: WeightsFacts, reason: str) -> str:
    from huggingface_hub import hf_hub_url

    address, place = hf_hub_url(facts.repository, FILE), weights_folder() / f"{facts.tag}.safetensors"
    return (
        f"The weights {facts.tag} ({facts.size_mb:,.0f} MB) are not on this machine and {reason}: download "
        f"{address} elsewhere and put it at {place}, "
        "or pass a .safetensors file of your own with --weights PATH, or start untrained with --weights random."
    )


def _why(error: Exception, status: int | None, otherwise: str) -> str:
    if status is not None:
        meaning = {401: "not found, or a token is needed", 403: "forbidden", 404: "not found"}.get(
            status, "trouble there"
        )
        return f"the hub answered {status} ({meaning})"
    detail = str(error).partition("\n")[0].rstrip(".")
    if "Consistency check" in detail:
        return "the download kept arriving cut short"
    return f"{otherwise} ({detail[:160] or type(error).__name__})"
