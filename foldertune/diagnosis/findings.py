"""What can be found about data and runs: a closed list of kinds, and the order in which findings are told. Pure.

A kind is what scripts and the studio go by: it never changes its meaning. docs/diagnose.md has the list of runs; a test reads both.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foldertune.errors import FoldertuneError
from foldertune.records import SEVERITIES, Finding

# Of the pictures of a folder (`look`); what matters more stands before.
DATA_KINDS: Mapping[str, str] = {
    "shortcut": "something beside the object that tells the classes apart",
    "split_leak": "the same picture, or two of one group, in train and in val or test",
    "label_conflict": "the same picture under two classes",
    "augmentation_conflict": "a change made while training that turns one class into another",
    "label_suspect": "pictures that seem to belong to another class",
    "unreadable": "files that cannot be decoded, with the reason",
    "too_few": "too few pictures, in all or of a class",
    "imbalance": "classes of very different sizes",
    "near_duplicate": "pictures of one class that are the same picture: resized, recompressed, mirrored or cropped",
    "exact_duplicate": "files of one class with the same content",
    "random_split": "how much a split that parts copies, bursts and groups would have flattered the accuracy",
    "crop_loss": "how much of the pictures the centre crop throws away",
    "outlier": "pictures that are unlike all others",
    "blank": "pictures that show nothing",
    "dark": "pictures that are nearly black",
    "overexposed": "pictures that are nearly white where the others are not",
    "blurred": "pictures with far less detail than the others",
    "grey": "pictures without colour among coloured ones",
    "tiny": "pictures smaller than the network's square",
    "huge": "pictures so large that reading them takes most of the time",
    "extreme_shape": "pictures at least three times as long as wide",
    "wrong_extension": "files whose name says another format than their content",
    "exif_rotated": "pictures that are stored turned, and are turned upright when read",
    "sixteen_bit": "pictures of 16 bits, of which the upper 8 are read",
    "alpha": "pictures with transparent parts, which show white",
}
# Of how a run learned (`diagnose`). "imbalance" is told of both, with what it did to the run.
RUN_KINDS: Mapping[str, str] = {
    "diverged": "the loss stopped being finite, or ended above what guessing gives",
    "wrong_normalisation": "pictures reach the network in another scale, or another order of colours, than it was made for",
    "frozen_by_mistake": "layers that should learn did not change",
    "label_noise": "many training labels are contradicted by the pictures",
    "validation_leaked": "validation shows pictures that were trained on",
    "rate_too_high": "the learning rate undid what the network knew",
    "rate_too_low": "the learning rate hardly moved the network",
    "too_few_steps": "training ended before the network could move",
    "batch_norm_trouble": "batch norms took the statistics of too few pictures",
    "augmentation_too_strong": "changes of the pictures were too strong to learn through",
    "over_fitting": "the training pictures were learned by heart",
    "slow_convergence": "the loss fell steadily and too slowly",
    "under_fitting": "even the training pictures were not learned",
    "imbalance": "classes of very different sizes, and the small ones are answered worse",
    "validation_too_small": "so few validation pictures that they choose and tell almost by chance",
    "loader_starving": "the device waited for pictures",
    "device_not_used": "a faster device, or cores, stood idle",
}
KINDS: Mapping[str, str] = {**RUN_KINDS, **DATA_KINDS}


_LONG = 40  # characters of a name that a sentence can take


def by_importance(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings, the gravest first, of equally grave ones in the order of the kinds, of one kind the surest first."""
    found = list(findings)
    for finding in found:
        if finding.kind not in KINDS or not 0 <= finding.score <= 1:
            raise FoldertuneError(f"{finding.kind} with the score {finding.score} is no finding of the list.")
    order = list(KINDS)
    return tuple(sorted(found, key=lambda each: (SEVERITIES.index(each.severity), order.index(each.kind), -each.score)))


@dataclass(frozen=True, slots=True)
class Asked:
    """What the remedies are commands for: the folder, and the flags that it was looked at with.

    taken: names of patches that are where the command will be typed, and are never written over.
    """

    folder: Path
    flags: tuple[str, ...] = ()
    taken: frozenset[str] = frozenset()

    def patch(self) -> str:
        """The command that writes what mends it into a file for a person to read."""
        given = self.flags[self.flags.index("--patch") + 1] if "--patch" in self.flags else ""
        number = re.fullmatch(r".*?-(\d+)\.csv", given)
        after = int(number[1]) if number else int(bool(given))  # what is in force stays; the next one takes it over
        names = (f"patch-{place}.csv" if place > 1 else "patch.csv" for place in itertools.count(after + 1))
        name = next(name for name in names if name not in self.taken)
        return self._command("look", *self.flags, "--write-patch", name)

    def train(self, *flags: str) -> str:
        return self._command("train", *self.flags, *flags)

    def look(self, *flags: str) -> str:
        return self._command("look", *self.flags, *flags)

    def _command(self, verb: str, *flags: str) -> str:
        return " ".join(["foldertune", verb, shlex.quote(str(self.folder)), *map(shlex.quote, flags)])


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 picture, 2 pictures, 3 classes."""
    several = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else several}"


def named(names: Sequence[str], most: int = 3) -> str:
    """Some names of a list, and how many more there are."""
    shown = ", ".join(repr(name if len(name) <= _LONG else f"{name[:_LONG]}…") for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"
