"""Results that took long, kept as one JSON file each, so that a second start goes on with what is missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of results, each named by the facts that it depends on."""

    folder: Path

    def path(self, facts: Mapping[str, Any]) -> Path:
        """Where the result with these facts is or will be; every difference in a fact is another file."""
        stamp = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"{stamp}.json"

    def find(self, facts: Mapping[str, Any]) -> Any:
        """The stored result, or None; a file that was cut short counts as none."""
        try:
            kept = json.loads(self.path(facts).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return kept["result"] if kept.get("facts") == json.loads(json.dumps(facts)) else None

    def resume(self, facts: Mapping[str, Any], work: Callable[[], Any]) -> tuple[Any, bool]:
        """(result, whether it was stored): found, or worked out now and stored. What raises is not stored."""
        if (found := self.find(facts)) is not None:
            return found, True
        result = work()
        path = self.path(facts)
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps({"facts": facts, "result": result}, indent=1), "utf-8")
        temporary.replace(path)
        return result, False
