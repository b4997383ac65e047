"""Start one command from a process that holds nothing, on so many cores, and tell its seconds, its exit status and its peak memory.

Linux counts to a process's peak what the one that started it held, so a benchmark that has read a model's weights cannot start what it
measures itself. It knows nothing of Foldertune and imports next to nothing.

usage: python -I -S bare.py REPORT THREADS COMMAND...
"""

import json
import os
import sys
import time


def main() -> None:
    report, threads, *command = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):  # what Linux has; elsewhere the number of threads must do
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    began = time.monotonic()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds, exit_code = time.monotonic() - began, os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    with open(report, "w") as stream:  # noqa: PTH123  # pathlib is more than next to nothing
        json.dump([seconds, exit_code, peak], stream)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
