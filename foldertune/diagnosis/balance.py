"""Findings on how many pictures there are, in all and of each class. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from foldertune.diagnosis.findings import Asked, counted, named
from foldertune.records import Evidence, Finding

FEW_PICTURES = 500  # the guide: at least 500 pictures for acceptable results, 1,000 of each class are optimal (SPEC 2)
FEW_OF_A_CLASS = 20  # a guess: of so many, three are tested
VERY_FEW_OF_A_CLASS = 5  # a guess: none is tested
IMBALANCE, STRONG_IMBALANCE = 3, 10  # largest class over smallest: from 3 on the plan weighs the loss; 10 is a guess


def balance_findings(counts: Mapping[str, int], *, asked: Asked) -> Iterator[Finding]:
    """counts: readable pictures of each class."""
    yield from _too_few(counts, asked)
    most, least = max(counts.values()), min(counts.values())
    if most >= IMBALANCE * max(1, least):
        large, small = (max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__))
        rows = [
            Evidence(name, round(1 - count / most, 3), counted(count, "picture"), label=name)
            for name, count in sorted(counts.items(), key=lambda item: item[1])
        ]
        yield Finding(
            "imbalance",
            f"The classes are uneven: {large!r} has {counted(most, 'picture')}, {small!r} {least:,}. Look at recall per class, not "
            "only at accuracy; more pictures of the small classes help most.",
            "serious" if most >= STRONG_IMBALANCE * max(1, least) else "warning",
            round(1 - least / most, 3),
            tuple(rows),
            asked.train("--imbalance", "weights"),
        )


def _too_few(counts: Mapping[str, int], asked: Asked) -> Iterator[Finding]:
    total = sum(counts.values())
    few = {name: count for name, count in sorted(counts.items(), key=lambda item: item[1]) if count < FEW_OF_A_CLASS}
    if total >= FEW_PICTURES and not few:
        return
    sentences = []
    if total < FEW_PICTURES:
        sentences.append(
            f"{counted(total, 'picture')} are few: expect wide intervals. {FEW_PICTURES} and more give acceptable results, 1,000 of "
            "each class good ones."
        )
    if few:
        sentences.append(
            f"{named(list(few), 5)} {'has' if len(few) == 1 else 'have'} fewer than {FEW_OF_A_CLASS} pictures; add some, or merge "
            "similar classes."
        )
    told = few or counts
    rows = [
        Evidence(name, round(max(0.0, 1 - count / FEW_PICTURES), 3), counted(count, "picture"), label=name)
        for name, count in told.items()
    ]
    grave = any(count < VERY_FEW_OF_A_CLASS for count in few.values())
    score = max(1 - total / FEW_PICTURES, 1 - min(few.values(), default=FEW_OF_A_CLASS) / FEW_OF_A_CLASS, 0.0)
    yield Finding(
        "too_few",
        " ".join(sentences),
        "serious" if grave else "warning",
        round(min(1.0, score), 3),
        tuple(sorted(rows, key=lambda row: -row.score)),
        asked.train("--tune", "head"),
    )
