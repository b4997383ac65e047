"""What validation pictures fixed and the model keeps: in its config.json under a key of ours, so that it travels with the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from foldertune.errors import SettingsError
from foldertune.evaluation.refusal import NO_REFUSAL, Refusal, read_refusal, refusal_document


@dataclass(frozen=True, slots=True)
class Standards:
    """What is held against other pictures.

    refusal: thresholds of the confidence.   lines: of two classes, see two_classes.chosen_lines.   temperature: what the logits
    were divided by; None where that is not known.
    """

    refusal: Refusal = NO_REFUSAL
    lines: Mapping[str, float] = field(default_factory=dict)
    temperature: float | None = None


NO_STANDARDS = Standards()


def standards_document(standards: Standards) -> dict[str, Any]:
    """What config.json holds of them."""
    return {
        "temperature": standards.temperature,
        "lines": dict(standards.lines),
        "refusal": refusal_document(standards.refusal),
    }


def read_standards(document: Mapping[str, Any], place: object) -> Standards:
    """The inverse; without any where there are none. Raises SettingsError for what makes no sense.   place: named in the error."""
    try:
        temperature = document.get("temperature")
        lines = {str(name): float(line) for name, line in document.get("lines", {}).items()}
        found = None if temperature is None else float(temperature)
        return Standards(read_refusal(document.get("refusal")), lines, found)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise SettingsError(
            f"What {place} says of validation (its key foldertune) is not understood ({str(error)[:200]}). Mend it, or take the key out."
        ) from error
