"""The part of a report that says how its model is used: commands to copy, and what an answer of "unknown" means."""

from __future__ import annotations

import shlex

from foldertune.evaluation.markup import SPACE, between, count, escape, percent
from foldertune.evaluation.refusal import DEFAULT_PROMISE
from foldertune.records import Evaluation


def usage_part(run: str, evaluation: Evaluation, *, tells_unlike: bool) -> str:
    """run: the path of the run folder, as commands are to name it.   tells_unlike: whether pictures of something else are told."""
    word = shlex.quote(run)
    commands = (
        ("Answer for pictures, or for whole folders of them", f"foldertune predict {word} new/ --output answers.csv"),
        ("Measure it on labelled pictures that it has not seen", f"foldertune evaluate {word} labelled/"),
        ("See what speaks for an answer, and how far to trust that", f"foldertune explain {word} new/1.jpg"),
        ("Ask again what went wrong in training, and what mends it", f"foldertune diagnose {word}"),
        (
            "From Python",
            f"import foldertune\nfor found in foldertune.predict({run!r}, 'new/'): print(found.path, found.label)",
        ),
    )
    parts = [f"<h3>{said}</h3>\n{_copied(said, command)}" for said, command in commands]
    return "\n".join(
        [*parts, *(f"<p>{sentence}</p>" for sentence in unknown_sentences(evaluation, tells_unlike=tells_unlike))]
    )


def unknown_sentences(evaluation: Evaluation, *, tells_unlike: bool) -> list[str]:
    """When `predict` answers "unknown", and what that came to on the test pictures."""
    kept = next((each for each in evaluation.promises if each.promise == DEFAULT_PROMISE), None)
    if kept is None:
        return []
    promise = f"{100 * kept.promise:g}{SPACE}%"
    when = [
        f"its confidence is below {percent(kept.threshold)}, so that at most {promise} of the answers that are given are wrong"
        if kept.threshold
        else "",
        "the picture looks like nothing that was learned" if tells_unlike else "",
    ]
    told = " or where ".join(part for part in when if part)
    found = [f"Instead of a class, <code>predict</code> says “unknown” where {told}."] if told else []
    if kept.threshold is None:
        found.append(
            f"That at most {promise} of its answers are wrong could not be promised from the validation pictures, so unsure answers "
            "are given too."
        )
    elif not kept.threshold:
        found.append(
            f"On the validation pictures at most {promise} of all answers were wrong, so unsure ones are given too."
        )
    if found and told and kept.error:
        found.append(
            f"On the {count(evaluation.num_pictures, 'test picture')} {percent(kept.answered.value)} were answered, and "
            f"{percent(kept.error.value)} of these answers were wrong ({between(kept.error)})."
        )
    return found


def _copied(said: str, command: str) -> str:
    """A command that one click selects whole. It is wide, so it can be scrolled with the keyboard too."""
    return (
        f'<pre class="command" tabindex="0" role="group" aria-label="{said}"><code>{escape_lines(command)}</code></pre>'
    )


def escape_lines(text: str) -> str:
    """Text of several lines, of which only the breaks between them stay breaks."""
    return "\n".join(map(escape, text.split("\n")))
