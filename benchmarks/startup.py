"""CPU seconds (user and system) of the commands that must answer at once.

usage: python benchmarks/startup.py [--runs 10]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from machine_facts import describe, spread

BARS = {"--help": 0.35, "--version": 0.15}


def cpu_seconds(arguments: list[str]) -> float:
    """Of one process, from its own resource usage."""
    process = subprocess.Popen([sys.executable, "-m", "foldertune", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"foldertune {' '.join(arguments)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    num_runs = parser.parse_args().runs
    print(describe())
    for flag, bar in BARS.items():
        cpu_seconds([flag])  # fills the caches of files and bytecode
        print(f"{flag}: {spread([cpu_seconds([flag]) for _ in range(num_runs)], 3)} s, bar {bar} s")


if __name__ == "__main__":
    main()
