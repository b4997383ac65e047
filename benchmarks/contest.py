"""Tools measured side by side: whole processes, in turn (A B C A B C ...), each with its time, its peak memory and what it told.

The first round is not counted: it fills the caches of files, bytecode and compiled models, and shows who cannot take part.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environments import PEERS, THREADS_VARIABLE, PeerError, environment, reason_of

BARE = Path(__file__).with_name("bare.py")
LONGEST_S = 900.0  # a tool that hangs is ended and named


@dataclass(frozen=True, slots=True)
class Measured:
    """One process. told: the last line of its output, where that is JSON."""

    seconds: float
    peak_mib: float
    told: Mapping[str, Any]


@dataclass(slots=True)
class Contestant:
    """A tool with its command, as it did. `problem` says why it has no figures, or none of the last rounds."""

    name: str
    command: Sequence[str] = ()
    versions: str = ""
    remark: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    runs: list[Measured] = field(default_factory=list)
    problem: str = ""


Measure = Callable[[Sequence[str], Mapping[str, str]], Measured]


def peer(
    name: str, script: str, arguments: Sequence[object], *, within: str, packages: Sequence[str], remark: str = ""
) -> Contestant:
    """A script in peers/, to be run in the environment of peers/WITHIN.txt. One that cannot be installed has its problem."""
    try:
        made = environment(within)
    except PeerError as error:
        return Contestant(name, remark=remark, problem=str(error))
    command = [made.python, str(PEERS / script), *map(str, arguments)]
    return Contestant(name, command, made.versions(packages), remark)


def hold(
    contestants: Sequence[Contestant], *, times: int, variables: Mapping[str, str], measure: Measure | None = None
) -> None:
    """Let each run once uncounted and then `times` times, in turn; who fails has a problem from then on and is left alone."""
    measure = measure or run_measured
    for round_ in range(times + 1):
        for contestant in contestants:
            if contestant.problem:
                continue
            say(f"{'warm-up' if round_ == 0 else f'round {round_} of {times}'}: {contestant.name}")
            try:
                run = measure(contestant.command, {**variables, **contestant.variables})
            except PeerError as error:
                contestant.problem = str(error)
                say(f"  {contestant.name}: {error}")
                continue
            say(f"  {run.seconds:.2f} s, {run.peak_mib:.0f} MiB {json.dumps(run.told) if run.told else ''}")
            if round_:
                contestant.runs.append(run)


def run_measured(command: Sequence[str], variables: Mapping[str, str], *, longest_s: float | None = None) -> Measured:
    """One process from its start to its end; the memory is that of its largest member. Raises PeerError where it fails."""
    with (
        tempfile.NamedTemporaryFile("r") as report,
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as errors,
    ):
        starter = started_bare(command, variables, report=report.name)
        process = subprocess.Popen(starter, env=dict(variables), stdout=output, stderr=errors, start_new_session=True)
        try:
            process.wait(longest_s or LONGEST_S)
        except subprocess.TimeoutExpired as error:
            raise PeerError(f"ended after {longest_s or LONGEST_S:.0f} s") from error
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        errors.seek(0)
        told = report.read()
        if not told:
            raise PeerError(f"could not be started: {reason_of(errors.read())}")
        seconds, exit_code, peak_mib = json.loads(told)
        if exit_code:
            raise PeerError(f"failed with exit code {exit_code}: {reason_of(errors.read())}")
        return Measured(seconds, peak_mib, told_by(output.read()))


def started_bare(command: Sequence[str], variables: Mapping[str, str], *, report: str = os.devnull) -> list[str]:
    """The command by way of bare.py, on as many cores as the variables say, else on all."""
    threads = variables.get(THREADS_VARIABLE) or str(os.cpu_count())
    return [sys.executable, "-I", "-S", str(BARE), report, threads, *command]


def told_by(output: str) -> dict[str, Any]:
    """The last line, where it is a JSON object."""
    lines = output.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def our_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """What our own processes need besides: the same code as this process, from wherever it was imported."""
    root = Path(__file__).resolve().parent.parent
    return {**variables, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])}
