"""The command `foldertune` as a process, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Said:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout as the one JSON document that it must be."""
        return json.loads(self.out)

    def refused(self, code: int) -> str:
        """The one sentence of an error: nothing on stdout, one line on stderr, no traceback."""
        assert self.code == code, self.err
        assert self.out == ""
        assert self.err.startswith("foldertune: ")
        assert self.err.count("\n") == 1
        return self.err.removeprefix("foldertune: ").rstrip("\n")


def foldertune(*words: str | Path, **variables: str) -> Said:
    """Run `foldertune WORDS` to its end. variables: of the environment, beside those of the tests."""
    command = [sys.executable, "-m", "foldertune", *map(str, words)]
    environment = {**os.environ, "PYTHONUTF8": "1", "COLUMNS": "100", **variables}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=300, check=False)
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())
