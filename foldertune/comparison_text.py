"""A comparison in words for a terminal: the networks, the pairs, and which to take."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from foldertune.records import Comparison, Pair


def comparison_lines(found: Comparison) -> Iterator[str]:
    """Line by line."""
    yield f"{'network':<10}  {'accuracy':>8}  {'95% interval':>16}  {'tuning, s':>9}  {'one, ms':>7}  {'per s':>6}  {'MB':>5}  kept"
    for each in found.contestants:
        low, high = each.accuracy.low, each.accuracy.high
        speed = f"{each.latency_ms:7.1f}  {each.pictures_per_s:6.0f}" if each.latency_ms else f"{'-':>7}  {'-':>6}"
        kept = ", ".join(dict.fromkeys(each.kept))
        between = f"{low:.1%} to {high:.1%}"
        cost = f"{each.learning_s:9.0f}  {speed}  {each.size_mb:5.0f}"
        yield f"{each.model:<10}  {each.accuracy.value:>8.1%}  {between:>16}  {cost}  {kept}"
    if found.pairs:
        yield ""
        yield from map(_pair, found.pairs)
    advised = [each for each in found.contestants if each.advice]
    if advised:
        yield ""
        yield from (f"The guide on {each.model}: {each.advice}" for each in advised)
    if found.left_out:
        yield ""
        yield from (f"Left out  {text}" for text in found.left_out)
        yield "          Weights are given by name: --weights resnet18=FILE.safetensors"
    yield ""
    yield from textwrap.wrap(found.answer, 110, break_on_hyphens=False)
    yield f"On {found.num_pictures['test']:,} test pictures; {_terms(found)}. Intervals are 95 %."


def _pair(pair: Pair) -> str:
    found = pair.difference
    points = f"{100 * found.value:+.1f} points ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    verdict = "shown" if pair.shown else "no difference shown"
    return f"{pair.first} over {pair.second}: {points}, p {shown_p(pair.p)}: {verdict}"


def shown_p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _terms(found: Comparison) -> str:
    budget = f"a time limit of {found.minutes:.3g} minutes each" if found.minutes else "no limit of time"
    trained = (
        "trained once, which --repeats makes surer" if found.repeats == 1 else f"trained {found.repeats} times each"
    )
    return f"the same split, {budget}, {trained}"
