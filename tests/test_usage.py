"""Commands of a report are read back by a shell's rules and by the command line itself."""

from __future__ import annotations

import ast
import dataclasses
import html
import re
import shlex

import pytest
from invented import assessed

from foldertune import cli
from foldertune.evaluation.refusal import Promise, Refusal
from foldertune.evaluation.standards import NO_STANDARDS, Standards
from foldertune.evaluation.usage import unknown_sentences, usage_part
from foldertune.records import Evaluation


def commands_of(run: str) -> list[str]:
    part = usage_part(run, assessed(60, standards=NO_STANDARDS), tells_unlike=False)
    return [html.unescape(each) for each in re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", part, re.DOTALL)]


@pytest.mark.parametrize("run", ["runs/mugs", "my runs/mugs & 'more'", "$(touch x)", 'a"b`c`'])
def test_usage_part_commands_name_the_run_as_one_word(run: str) -> None:
    *commands, program = commands_of(run)
    words = [shlex.split(command) for command in commands]
    assert [each[:3] for each in words] == [
        ["foldertune", verb, run] for verb in ("predict", "evaluate", "explain", "diagnose")
    ]
    named = [node.value for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Constant)]
    assert run in named
    assert len(program.splitlines()) == 2


def test_usage_part_commands_are_read_by_the_command_line() -> None:
    for command in commands_of("runs/mugs")[:-1]:
        function, bound, _ = cli.app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)
        assert function.__name__ == shlex.split(command)[1]
        assert bound.arguments


def promised(threshold: float | None) -> Evaluation:
    return assessed(200, standards=Standards(Refusal(90, (Promise(0.05, threshold),))), num_unlike=2)


def said(found: Evaluation, *, tells_unlike: bool) -> str:
    return " ".join(unknown_sentences(found, tells_unlike=tells_unlike)).replace("\u00a0", " ")


def test_unknown_sentences_tell_the_threshold_and_what_it_came_to() -> None:
    found = promised(0.8)
    text, kept = said(found, tells_unlike=True), found.promises[0]
    assert "below 80.0 %, so that at most 5 % of the answers that are given are wrong" in text
    assert "or where the picture looks like nothing" in text
    assert kept.error is not None
    assert f"{100 * kept.answered.value:.1f} % were answered, and {100 * kept.error.value:.1f} % of these" in text
    assert "looks like" not in said(found, tells_unlike=False)


def test_unknown_sentences_say_what_could_not_be_promised() -> None:
    assert "could not be promised" in said(promised(None), tells_unlike=False)
    assert "unknown" not in said(promised(None), tells_unlike=False)
    assert "says “unknown” where the picture looks like" in said(promised(None), tells_unlike=True)


def test_unknown_sentences_all_answers_given_or_nothing_known() -> None:
    assert "at most 5 % of all answers were wrong" in said(promised(0.0), tells_unlike=False)
    assert said(dataclasses.replace(promised(0.8), promises=()), tells_unlike=True) == ""
