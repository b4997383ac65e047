"""The command `foldertune`, and `python -m foldertune`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. The version is answered before anything else is imported."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from foldertune import __version__

        print(__version__)
        return
    from foldertune.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
