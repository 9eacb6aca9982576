"""The parts of a report's page on one task: verdict, tables, plots, samples."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_diffaug.ablation.canvas import ROLE_NAMES
from lightning_diffaug.ablation.drawings import Drawing, as_range, of_classes
from lightning_diffaug.ablation.fidelity_section import fidelity
from lightning_diffaug.ablation.findings import Findings, shown_role
from lightning_diffaug.ablation.markup import (
    MANY_CLASSES,
    NOTHING,
    Cell,
    Content,
    Markup,
    bullets,
    element,
    in_parts,
    joined,
    png,
    table,
)
from lightning_diffaug.ablation.metric import CORRECTED
from lightning_diffaug.ablation.modalities import missing_modalities
from lightning_diffaug.ablation.numbers import NONE, amount, as_score, compared, per_cent, points
from lightning_diffaug.ablation.runs import CONTROL, OTHER_GENERATOR
from lightning_diffaug.ablation.summary import ArmSummary
from lightning_diffaug.ablation.svg import inline_svg

_SAMPLES = "samples.png"
_ROLES = {**ROLE_NAMES, CONTROL: "control", OTHER_GENERATOR: "other generator"}
_CLASS = "test/acc_class_"
_RARE = "test/acc_rare"
_STEP = {True: "percentage point", False: "per cent of its score"}


def verdict(findings: Findings) -> Markup:
    """The verdict's sentence, what qualifies it, and what warns of it."""
    found = findings.verdict
    task = element("p", found.task, class_="task") if found.task else NOTHING
    sentence = element("p", found.sentence, class_="sentence")
    warned = bullets(findings.warnings, "warnings")
    return element("div", joined([task, sentence, warned]), class_=f"verdict {found.kind}")


def details(findings: Findings, drawings: Sequence[Drawing], prefix: str) -> Markup:
    """Everything else about a task; ids begin with the prefix."""
    plots = {drawing.name: _plot(drawing, prefix) for drawing in drawings}

    def shown(*names: str) -> Markup:
        found = [plots[name] for name in names if name in plots]
        return element("div", *found, class_="plots") if found else NOTHING

    best = [one.sentence for one in findings.best]
    return joined(
        [
            shown("accuracy_against_fraction", "score_against_fraction", "arms"),
            _titled("Every arm", _arms(findings)),
            _titled("With a modality missing", _missing(findings)),
            _titled("Best fraction", bullets(best)) if best else NOTHING,
            _titled("Costs", _costs(findings)),
            _titled("Classes", joined([shown("rare_classes", "per_class"), _classes(findings)])),
            _titled("Learning curves", shown("learning_curves")),
            _titled("Fidelity of the samples", fidelity(findings)),
            _titled("Samples", _samples(findings)),
            _titled("What to know", bullets(findings.notes)),
        ]
    )


def _titled(title: str, content: Markup) -> Markup:
    return element("section", element("h3", title), content) if content.text else NOTHING


def _plot(drawing: Drawing, prefix: str) -> Markup:
    return element("figure", Markup(inline_svg(drawing.figure, f"{prefix}{drawing.name}", drawing.label)))


def _arms(findings: Findings) -> Markup:
    metric, found = findings.metric, findings.verdict
    raw, corrected = metric.key("test"), metric.key("test", corrected=True)
    columns = [(raw, metric.heading, 2 if metric.name == "auroc" else 1)]
    if corrected != raw:
        columns.append((corrected, "the same, class prior corrected, %", 1))
    if raw != _RARE:
        columns.append((_RARE, "rare classes, %", 1))
        columns.append((_RARE + CORRECTED, "rare classes, class prior corrected, %", 1))
    if raw != "test/auroc":
        columns.append(("test/auroc", "macro AUROC, %", 2))
    columns = [column for column in columns if any(column[0] in arm.estimates for arm in findings.arms)]
    references = list(dict.fromkeys(n for n in (found.real_only, found.best_baseline, found.control) if n))
    rows = []
    for arm in findings.arms:
        role = shown_role(arm)
        row: list[Cell | Content] = [_name(findings, arm)]
        row += [
            per_cent(arm.estimates.get(key), digits, key == findings.score_key, metric if key == raw else None)
            for key, _, digits in columns
        ]
        row += [
            Cell("reference") if arm.arm == name else compared(found.comparison(arm.arm, name), metric)
            for name in references
        ]
        rows.append([*row, _ROLES.get(role, role), f"{arm.fraction:.4g}", f"{arm.runs}"])
    heads: list[Content] = ["arm", *(title for _, title, _ in columns)]
    heads += [*(f"minus {name}{metric.difference_unit}" for name in references), "role", "fraction", "seeds"]
    decides = (
        f"{metric.title}, class prior corrected on validation" if found.corrected else f"{metric.title}, as scored"
    )
    if not metric.needs_correction:
        decides = metric.title
    shifted = "as scored where no heading says otherwise, " if metric.needs_correction else ""
    caption = (
        f"On real test data after the last step, {shifted}mean ± half the 95% t-interval over seeds. Differences are "
        f"of the score that decides ({decides}; {metric.reason}), paired by seed; p of the paired t-test, "
        "Holm-corrected over all synthetic arms, or of one test alone; d: effect size d_z; n: pairs. "
        "Bold: the interval excludes 0."
    )
    if metric.lower:
        caption += " Lower is better: a difference below 0 is a gain."
    if findings.trivial is not None:
        value = as_score(findings.trivial, metric)
        caption += f" Trivial, what chance or a mean predictor reaches (test/{metric.name}_trivial): {value}."
    return table(heads, rows, caption)


def _missing(findings: Findings) -> Markup:
    tables = []
    for found in missing_modalities(findings.arms, findings.metric):
        rows: list[list[Cell | Content]] = [
            [arm.arm, f"{arm.runs}", *(per_cent(arm.estimates.get(key), metric=found.metric) for key in found.keys)]
            for arm in findings.arms
            if any(key in arm.estimates for key in found.keys)
        ]
        heads = ["arm", "seeds", "all modalities", *(f"without {name}" for name in found.modalities)]
        caption = f"{found.metric.heading}, on real test data, as scored; mean ± half the 95% t-interval over seeds."
        tables.append(table(heads, rows, caption))
    return joined(tables)


def _name(findings: Findings, arm: ArmSummary) -> Cell:
    said = [
        text
        for one, text in (
            (findings.judged, "judged"),
            (findings.best_baseline, "best without a generator"),
            (findings.control, "the control"),
            (findings.equal_time, "equal wall-clock time"),
        )
        if one is not None and one.arm == arm.arm
    ]
    return Cell(arm.arm, "; ".join(said), strong=bool(said))


def _costs(findings: Findings) -> Markup:
    if not any(c.generator_seconds or c.fit_seconds or c.train_seconds for c in findings.costs):
        return NOTHING
    metric = findings.metric
    rows: list[list[Cell | Content]] = []
    for c in findings.costs:
        price = amount(c.price)
        if c.price is not None and c.price_low is not None:
            high = "no upper bound" if c.price_high is None else f"{c.price_high:,.1f}"
            price = Cell(price.text, f"{c.price_low:,.1f} to {high}", c.price)
        rows.append(
            [
                c.arm, amount(c.fit_seconds), amount(c.generator_seconds), amount(c.samples, 0),
                amount(c.passes_per_sample, 2), amount(c.train_seconds), amount(c.wait_seconds),
                points(c.gain, metric=metric), price,
            ]
        )  # fmt: skip
    heads = [
        "arm", "fit of the generator, s", "generation, s", "samples made", "passes per trained sample", "training, s",
        "waiting, s", f"gain over {findings.verdict.real_only or 'real only'}{metric.difference_unit}",
        "price of a point, s" if metric.share else "price of 1% better, s",
    ]  # fmt: skip
    caption = (
        "Means over runs. Fit and generation count for every run that used what was made, whoever made it. Price: "
        f"seconds of fit and generation for each {_STEP[metric.share]} gained over real data alone; none without a "
        "gain."
    )
    return table(heads, rows, caption)


def _classes(findings: Findings) -> Markup:
    names = list(dict.fromkeys(name for arm in findings.arms for name in of_classes(arm, _CLASS)))
    if not names or len(names) > MANY_CLASSES:
        return NOTHING
    counts = findings.class_counts
    names.sort(key=lambda name: counts.get(name, (0, 0))[0])
    corrected = findings.verdict.corrected and all(of_classes(arm, _CLASS, True) for arm in findings.arms)
    found = {arm.arm: of_classes(arm, _CLASS, corrected) for arm in findings.arms}
    tables = []
    for some in in_parts(names):
        rows: list[list[Cell | Content]] = [[arm, *(per_cent(of.get(c)) for c in some)] for arm, of in found.items()]
        if counts:
            images = [as_range(counts[c]) if c in counts else NONE for c in some]
            rows.insert(0, ["real training samples", *images])
        tables.append(table(["arm", *some], rows))
    prior = "class prior corrected" if corrected else "as scored"
    note = f"Accuracy on each class of real test data, % ({prior}), mean ± half the 95% t-interval over seeds."
    return joined([*tables, element("p", note, class_="note")])


def _samples(findings: Findings) -> Markup:
    """A picture of one run an arm, those of the arm judged first."""
    shown = []
    for arm in sorted(findings.arms, key=lambda arm: arm is not findings.judged):
        path = next((p for run in arm.runs_of if (p := run.path / _SAMPLES).is_file()), None)
        if path is not None:
            picture = png(path, f"{arm.arm}: real and synthetic samples of each class")
            shown.append(element("figure", picture, element("figcaption", arm.arm)))
    return element("div", *shown, class_="samples") if shown else NOTHING
