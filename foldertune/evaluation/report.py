"""The report of a run: one HTML file that needs no network, no script and no other file, in light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from foldertune.evaluation.confidence import Curve, confidence_part
from foldertune.evaluation.curves import draw_history, ended_early
from foldertune.evaluation.faults import findings_list
from foldertune.evaluation.figures import (
    classes_table,
    confusion_table,
    confusions,
    confusions_list,
    models_table,
    weakest_classes,
)
from foldertune.evaluation.gallery import (
    Maps,
    Mistake,
    MixedPair,
    Thumbnails,
    mistakes_gallery,
    pairs_gallery,
)
from foldertune.evaluation.markup import (
    SPACE,
    between,
    count,
    escape,
    folded,
    name,
    percent,
    rows_line,
    section,
    setting_value,
    style_sheet,
    table,
    whole_page,
)
from foldertune.evaluation.usage import usage_part
from foldertune.records import EpochRecord, Evaluation, Finding, Picture, Plan

_OF_SUSPECTS = (
    "Beside a picture whose label is doubted is a map, bright where most speaks for the class that it is like."
)
_NO_PROOF = (
    "Where nothing is bright, nothing was found that speaks for it. A map is no proof: <code>foldertune explain RUN IMAGE</code> "
    "draws it larger and checks how far it can be trusted."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """All that a report and a model card tell.

    verdict: which model was kept and by how much, a sentence.   evaluations: by model, "baseline" and perhaps
    "fine-tuned", measured on the test split; kept: the key of one.   num_pictures: readable pictures by split.
    class_counts: by split, then class; may be empty.   data_findings: what is wrong with the pictures, with thumbnails by path.
    findings: what was wrong with the run.   answered: of the test pictures, the error by the share answered.
    pairs: what was mixed up, the most frequent first.   maps: of shown pictures.   minutes: what the run took.
    run: the path of its folder, for commands; "" where it has none.   tells_unlike: whether the model tells pictures of something else.
    """

    title: str
    created: str
    verdict: str
    plan: Plan
    history: tuple[EpochRecord, ...]
    evaluations: Mapping[str, Evaluation]
    kept: str
    num_pictures: Mapping[str, int]
    classes: tuple[str, ...]
    mistakes: tuple[Mistake, ...]
    unreadable: tuple[Picture, ...]
    skipped: Mapping[str, int]
    warnings: tuple[str, ...]
    environment: Mapping[str, str]
    minutes: float
    class_counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    data_findings: tuple[Finding, ...] = ()
    thumbnails: Thumbnails = field(default_factory=dict)
    answered: Curve = ()
    pairs: tuple[MixedPair, ...] = ()
    maps: Maps = field(default_factory=dict)
    run: str = ""
    tells_unlike: bool = False

    @property
    def evaluation(self) -> Evaluation:
        """That of the kept model."""
        return self.evaluations[self.kept]

    @property
    def all_warnings(self) -> tuple[str, ...]:
        grave = [finding.sentence for finding in (*self.data_findings, *self.findings) if finding.severity == "serious"]
        return tuple(dict.fromkeys([*grave, *self.warnings, *self.plan.warnings]))


def render_report(facts: ReportFacts) -> str:
    """The report as HTML text, to be written as UTF-8."""
    body = "\n".join(part for part in _parts(facts) if part)
    style = style_sheet(("foldertune.evaluation", "report.css"))
    return whole_page(f"{facts.title} – Foldertune report", body, style=style)


def _parts(facts: ReportFacts) -> Iterator[str]:
    evaluation = facts.evaluation
    yield _header(facts)
    yield _headline(facts)
    yield _warnings(facts)
    yield section(
        "Models",
        models_table(facts.evaluations, facts.kept),
        lead="Every model is measured once on the test split, which chose nothing. Macro F1 gives each class the same "
        "weight; a lower log loss means more honest probabilities.",
        rows=["metrics.json"],
    )
    yield section(
        "What went wrong in training",
        findings_list(facts.findings, {}, "findings.json"),
        lead="The gravest first, each with the command that mends it.",
        rows=["findings.json"],
    )
    yield section(
        "Learning",
        _ended(facts) + draw_history(facts.history) + _history_table(facts),
        rows=["history.jsonl"] if facts.history else [],
    )
    yield section(
        "How far to trust its confidence",
        confidence_part(evaluation, facts.answered),
        lead="The confidence of an answer is the probability of its class.",
        rows=["metrics.json", "predictions.csv"],
    )
    yield section("Classes", classes_table(evaluation), lead=weakest_classes(evaluation), rows=["metrics.json"])
    yield from _confused(facts)
    yield section(
        "Worst mistakes",
        mistakes_gallery(facts.mistakes, facts.maps),
        lead="Wrong answers of the test split, the most confident first. Some may be wrong labels, not wrong answers; "
        "those that the look at the data doubts are marked."
        + (f" Beside each is a map, bright where most speaks for the answer. {_NO_PROOF}" if facts.maps else ""),
        rows=["predictions.csv"],
    )
    yield section(
        "What was found in the data",
        findings_list(facts.data_findings, facts.thumbnails, "look.json", facts.maps),
        lead="The most important first, each with the command that mends it. The folder itself is never changed."
        + (
            f" {_OF_SUSPECTS} {_NO_PROOF}"
            if facts.maps and any(each.kind == "label_suspect" for each in facts.data_findings)
            else ""
        ),
        rows=["look.json"],
    )
    if facts.run:
        yield section(
            "How to use the model",
            usage_part(facts.run, evaluation, tells_unlike=facts.tells_unlike),
            rows=["config.json", "metrics.json"],
        )
    yield section("Data", _data(facts), rows=["dataset.csv"])
    yield section("Settings", _settings(facts), rows=["plan.json"])
    yield section("Made with", folded("Versions and machine", _environment(facts)), rows=["run.json"])


def _confused(facts: ReportFacts) -> Iterator[str]:
    """The matrix, and the pictures that its cells lead to."""
    evaluation, opened = facts.evaluation, {(pair.label, pair.answer) for pair in facts.pairs}
    matrix = confusion_table(evaluation, opened)
    yield section(
        "What is taken for what",
        f'<div class="mixed">{matrix}{confusions_list(evaluation)}</div>',
        lead="Each row of the matrix is a class, each column an answer; the diagonal is right."
        + (" A number beside it leads to the pictures." if opened else ""),
        rows=["metrics.json", "predictions.csv"],
    )
    num_pairs = len(confusions(evaluation))
    most = (
        f" Of {num_pairs:,} such pairs these are the {len(opened):,} most frequent." if num_pairs > len(opened) else ""
    )
    yield section(
        "Confused pairs",
        pairs_gallery(facts.pairs, facts.classes),
        lead=f"Pictures of one class that were answered as another, the surest answer first, with its probability.{most}",
        rows=["predictions.csv"],
    )


def _header(facts: ReportFacts) -> str:
    total = sum(facts.num_pictures.values())
    figures = (
        escape(facts.created),
        count(total, "picture"),
        count(len(facts.classes), "class"),
        f"{facts.minutes:.1f}{SPACE}minutes",
    )
    line = ' <span aria-hidden="true">·</span> '.join(figures)
    title = f"<h1><bdi>{escape(facts.title)}</bdi></h1>"
    return f'<header><p class="eyebrow">Foldertune report</p>\n{title}\n<p>{line}</p></header>'


def _headline(facts: ReportFacts) -> str:
    found = facts.evaluation
    verb = "is" if found.num_pictures == 1 else "are"
    tiles = [
        ("Macro F1", percent(found.macro_f1)),
        *([("Top 5", percent(found.top5))] if found.top5 is not None else []),
        ("Log loss", f"{found.log_loss:.3f}"),
        ("Kept model", escape(facts.kept)),
    ]
    shown = "".join(f"<div><dt>{title}</dt><dd>{value}</dd></div>" for title, value in tiles)
    return (
        '<section class="headline" aria-label="Accuracy">\n'
        f'<p class="figure">{percent(found.accuracy.value)}</p>\n'
        f"<p><strong>of {count(found.num_pictures, 'test picture')} {verb} answered correctly.</strong> "
        f"On pictures like these the accuracy lies between {percent(found.accuracy.low)} and "
        f"{percent(found.accuracy.high)}, with 95{SPACE}% confidence.</p>\n"
        f'{_leaks(found)}{_again(found)}<p class="verdict">{escape(facts.verdict)}</p>\n<dl class="tiles">{shown}</dl>\n'
        f"{rows_line(['metrics.json', 'predictions.csv'])}</section>"
    )


def _leaks(found: Evaluation) -> str:
    """What the accuracy is without the pictures that stand in two splits."""
    if found.without_leaks is None:
        return ""
    others = f"Without the {count(found.num_leaked, 'test picture')} that {'is' if found.num_leaked == 1 else 'are'} also in another split"
    return f"<p>{others} it is {percent(found.without_leaks.value)} ({between(found.without_leaks)}).</p>\n"


def _again(found: Evaluation) -> str:
    """What cross-validation adds where classes have few test pictures."""
    again = found.cross_validation
    if again is None:
        return ""
    return (
        f"<p>Some classes have few test pictures. Cross-validated on all {count(again.num_pictures, 'picture')} "
        f"({again.num_repeats} times {again.num_folds} folds), the head alone answers {percent(again.accuracy.value)} correctly, "
        f"with a 95{SPACE}% interval of {between(again.accuracy)}.</p>\n"
    )


def _warnings(facts: ReportFacts) -> str:
    if not facts.all_warnings:
        return ""
    items = "\n".join(f"<li>{escape(warning)}</li>" for warning in facts.all_warnings)
    return f'<section class="warnings"><h2>Worth knowing</h2>\n<ul>\n{items}\n</ul></section>'


def _ended(facts: ReportFacts) -> str:
    why = ended_early(facts.plan, facts.history) if facts.history else ""
    return f"<p>{escape(why)}</p>\n" if why else ""


def _history_table(facts: ReportFacts) -> str:
    def row(record: EpochRecord) -> list[str]:
        return [
            f'{record.epoch} <span class="tag">best</span>' if record.epoch == best else str(record.epoch),
            f"{record.train_loss:.3f}",
            "—" if record.val_loss is None else f"{record.val_loss:.3f}",
            percent(record.train_accuracy),
            "—" if record.val_accuracy is None else percent(record.val_accuracy),
            f"{record.learning_rate:.2e}",
            f"{record.gradient_norm:.2f}",
            f"{record.pictures_per_s:,.1f}",
            f"{record.elapsed_s:,.0f}",
        ]

    if not facts.history:
        return "<p>No layer below the head was trained: the baseline is the model.</p>"
    head = [
        "Epoch", "Training loss", "Validation loss", "Training accuracy", "Validation accuracy",
        "Learning rate", "Gradient norm", "Pictures per s", "Seconds",
    ]  # fmt: skip
    best = max((record.epoch for record in facts.history if record.best), default=0)
    rows = table(head, map(row, facts.history), caption="Every epoch", numeric=range(1, len(head)))
    return folded(f"Every epoch in numbers ({len(facts.history)})", rows, opened=len(facts.history) == 1)


def _data(facts: ReportFacts) -> str:
    rows = [[escape(split), f"{number:,}"] for split, number in facts.num_pictures.items()]
    counts = table(["Split", "Pictures"], rows, caption="Readable pictures by split", numeric=[1])
    if facts.class_counts:
        splits = list(facts.class_counts)
        per_class = [
            [name(label), *(f"{facts.class_counts[split].get(label, 0):,}" for split in splits)]
            for label in facts.classes
        ]
        counts += folded(
            f"Pictures of each class ({len(facts.classes)})",
            table(
                ["Class", *map(escape, splits)], per_class, caption="Pictures by class and split", numeric=range(1, 9)
            ),
        )
    unreadable = [[name(picture.path), name(picture.label), escape(picture.problem)] for picture in facts.unreadable]
    skipped = [[escape(reason), f"{number:,}"] for reason, number in facts.skipped.items()]
    left_out = [
        table(["File", "Class", "Problem"], unreadable, caption="Pictures that are left out") if unreadable else "",
        table(["Skipped because", "Files"], skipped, caption="Files that are no pictures of a class", numeric=[1])
        if skipped
        else "",
    ]
    num_left_out = len(unreadable) + sum(facts.skipped.values())
    return counts + folded(f"Left out: {count(num_left_out, 'file')}", "".join(left_out))


def _settings(facts: ReportFacts) -> str:
    says = {"user": "you", "file": "settings file", "compare": "comparison"}
    rows = [
        [
            escape(decision.setting.replace("_", " ")),
            f"<code>{escape(setting_value(decision.value))}</code>",
            escape(decision.reason),
            says.get(decision.source) or f"rule {escape(decision.rule)}",
        ]
        for decision in facts.plan.decisions
    ]
    decisions = table(["Setting", "Value", "Reason", "Decided by"], rows, caption="Every setting of the plan")
    return _forecast(facts) + folded(f"Every setting with its reason ({len(rows)})", decisions)


def _forecast(facts: ReportFacts) -> str:
    """What the plan expected, and what came of it."""
    forecast = facts.plan.forecast
    if forecast is None:
        return ""
    told = [
        f"Forecast: {forecast.minutes:.1f}{SPACE}minutes, {forecast.memory_mib:,.0f}{SPACE}MiB of memory. "
        f"It took {facts.minutes:.1f}{SPACE}minutes."
    ]
    if accuracy := forecast.accuracy:
        told.append(
            f"Forecast: accuracy between {percent(accuracy.low)} and {percent(accuracy.high)} in {100 * accuracy.level:.0f}{SPACE}% of "
            f"runs, {percent(accuracy.value)} expected. It reached {percent(facts.evaluation.accuracy.value)}."
        )
    elif forecast.no_accuracy:
        told.append(f"The accuracy was not forecast: {escape(forecast.no_accuracy)}.")
    return "".join(f"<p>{text}</p>" for text in told)


def _environment(facts: ReportFacts) -> str:
    rows = [[escape(key), escape(value)] for key, value in facts.environment.items()]
    return table(["What", "Version"], rows, caption="Versions and machine") if rows else ""
