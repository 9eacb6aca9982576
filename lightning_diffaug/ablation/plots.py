"""The plots of a report: a score against the fraction, arms as dots, classes, curves. They know numbers, not runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_diffaug.ablation.canvas import (
    BAND,
    GREY,
    JUDGED,
    ROLE_NAMES,
    STYLES,
    Style,
    Texts,
    Value,
    add_legend,
    handle,
    new_figure,
    score_axis,
    wrapped,
)


@dataclass(frozen=True)
class Line:
    """Values at several places, such as fractions or steps.

    Attributes:
        label: What it is.
        points: (place, value), in the order of the places.
        style: How it is drawn.
    """

    label: str
    points: Sequence[tuple[float, Value]]
    style: Style


@dataclass(frozen=True)
class Level:
    """A value that has no place on the horizontal axis.

    Attributes:
        label: What it is.
        value: The value.
        style: How it is drawn.
    """

    label: str
    value: Value
    style: Style


@dataclass(frozen=True)
class Row:
    """An arm among others.

    Attributes:
        label: Its name.
        value: What the rows are sorted by.
        role: One of the keys of `STYLES`.
        raw: A second value, drawn hollow; None without one.
    """

    label: str
    value: Value
    role: str
    raw: Value | None = None


@dataclass(frozen=True)
class OfClasses:
    """An arm's values by class.

    Attributes:
        label: The arm.
        values: One a class; None where there is none.
        style: How they are drawn.
    """

    label: str
    values: Sequence[Value | None]
    style: Style


def against_fraction(lines: Sequence[Line], levels: Sequence[Level], texts: Texts) -> Figure:
    """A score against the synthetic fraction, intervals as bands, with levels to compare it to.

    Args:
        lines: One for each family of arms that differ in the fraction, few.
        levels: Arms without a fraction, few.
        texts: What is written on it.
    """
    figure, axes = new_figure(3.5 + 0.2 * (len(lines) + len(levels)), texts)
    for level in levels:
        value, style = level.value, level.style
        axes.axhline(
            texts.scale * value.mean, color=style.colour, linestyle=style.dashes, linewidth=1.4, label=level.label
        )
        if value.low is not None and value.high is not None:
            axes.axhspan(
                texts.scale * value.low, texts.scale * value.high, color=style.colour, alpha=BAND / 2, linewidth=0
            )
    _draw_lines(axes, _side_by_side(lines), texts)
    places = _apart(sorted({place for line in lines for place, _ in line.points}))
    axes.set_xticks(places, [f"{place:.3g}" for place in places])
    axes.set_xlabel("synthetic fraction of the training draws")
    score_axis(texts, axes.yaxis, axes.set_ylim, axes.get_ylim())
    axes.set_ylabel(texts.score)
    add_legend(figure, axes)
    return figure


def curves(lines: Sequence[Line], texts: Texts) -> Figure:
    """A score against optimiser steps, intervals as bands.

    Args:
        lines: One an arm, few.
        texts: What is written on it.
    """
    figure, axes = new_figure(3.3 + 0.2 * len(lines), texts)
    _draw_lines(axes, lines, texts)
    axes.set_xlabel("optimiser steps")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    score_axis(texts, axes.yaxis, axes.set_ylim, axes.get_ylim())
    axes.set_ylabel(texts.score)
    add_legend(figure, axes)
    return figure


def dots(rows: Sequence[Row], texts: Texts, filled: str, hollow: str) -> Figure:
    """Arms from the best down to the worst, with their intervals.

    Args:
        rows: The arms.
        texts: What is written on it.
        filled: What the filled marker is.
        hollow: What the hollow one is, where a row has it.
    """
    rows = sorted(rows, key=lambda row: -row.value.mean if texts.lower else row.value.mean)
    names = [wrapped(row.label) for row in rows]
    height = sum(0.16 + 0.13 * (1 + name.count("\n")) for name in names)
    roles = [role for role in STYLES if any(row.role == role for row in rows)]
    two = any(row.raw is not None for row in rows)
    figure, axes = new_figure(0.9 + height + 0.2 * (len(roles) + 2 * two), texts)
    for place, row in enumerate(rows):
        style = STYLES.get(row.role, JUDGED)
        _draw_interval(axes, row.value, place, style.colour, texts)
        if row.raw is not None:
            axes.plot(
                texts.scale * row.raw.mean,
                place,
                style.marker,
                color=style.colour,
                markerfacecolor="none",
                markersize=6,
            )
        axes.plot(texts.scale * row.value.mean, place, style.marker, color=style.colour, markersize=6)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    score_axis(texts, axes.xaxis, axes.set_xlim, axes.get_xlim())
    axes.set_xlabel(texts.score)
    handles = [handle(STYLES[role], ROLE_NAMES[role]) for role in roles]
    if two:
        grey = Style(GREY, "o")
        handles += [handle(grey, f"filled: {filled}"), handle(grey, f"hollow: {hollow}", hollow=True)]
    add_legend(figure, axes, handles)
    return figure


def by_class(classes: Sequence[str], arms: Sequence[OfClasses], texts: Texts) -> Figure:
    """A score of each class for a few arms.

    Args:
        classes: Names, from the top down.
        arms: Few; each with a value for each class.
        texts: What is written on it.
    """
    step = 0.8 / max(len(arms), 1)
    figure, axes = new_figure(0.9 + len(classes) * max(0.1 * len(arms) + 0.08, 0.24) + 0.2 * len(arms), texts)
    for number, arm in enumerate(arms):
        places = [-(place + (number + 0.5) * step - 0.4) for place in range(len(classes))]
        found = [(value, place) for value, place in zip(arm.values, places, strict=True) if value is not None]
        for value, place in found:
            _draw_interval(axes, value, place, arm.style.colour, texts)
        means, at = [texts.scale * value.mean for value, _ in found], [place for _, place in found]
        axes.plot(means, at, arm.style.marker, color=arm.style.colour, markersize=4.5, label=arm.label)
    axes.set_yticks([-place for place in range(len(classes))], [wrapped(name) for name in classes])
    axes.set_ylim(-len(classes) + 0.5, 0.5)
    axes.grid(axis="y", visible=False)
    for place in range(1, len(classes)):
        axes.axhline(0.5 - place, color=GREY, alpha=0.3, linewidth=0.6)
    score_axis(texts, axes.xaxis, axes.set_xlim, axes.get_xlim())
    axes.set_xlabel(texts.score)
    add_legend(figure, axes)
    return figure


def _draw_lines(axes: Axes, lines: Sequence[Line], texts: Texts) -> None:
    for line in lines:
        colour = line.style.colour
        axes.plot(
            [place for place, _ in line.points], [texts.scale * value.mean for _, value in line.points],
            color=colour, marker=line.style.marker, linestyle=line.style.dashes, linewidth=1.8, markersize=5,
            label=line.label,
        )  # fmt: skip
        ends = [(place, v.low, v.high) for place, v in line.points if v.low is not None and v.high is not None]
        lows, highs = [texts.scale * low for _, low, _ in ends], [texts.scale * high for _, _, high in ends]
        if len(ends) == 1:  # a band has no width here
            axes.vlines(ends[0][0], lows, highs, color=colour, linewidth=1.4)
        elif ends:
            axes.fill_between([place for place, _, _ in ends], lows, highs, color=colour, alpha=BAND, linewidth=0)


def _side_by_side(lines: Sequence[Line]) -> list[Line]:
    """Lines of a single point are moved a little where another one has a point: one would hide the other."""
    places = [place for line in lines for place, _ in line.points]
    step = 0.02 * ((max(places) - min(places)) or 1.0) if places else 0.0
    taken = {place for line in lines if len(line.points) > 1 for place, _ in line.points}
    moved = []
    for line in lines:
        points = list(line.points)
        if len(points) == 1:
            ways = (n * step * side for n in range(len(lines) + 1) for side in (1, -1))
            place = next(place for way in ways if (place := points[0][0] + way) not in taken)
            taken.add(place)
            points = [(place, points[0][1])]
        moved.append(replace(line, points=points))
    return moved


def _draw_interval(axes: Axes, value: Value, place: float, colour: str, texts: Texts) -> None:
    if value.low is not None and value.high is not None:
        axes.hlines(place, texts.scale * value.low, texts.scale * value.high, color=colour, linewidth=1.6)


def _apart(places: Sequence[float], share: float = 0.07) -> list[float]:
    """Those places of which the numbers can stand side by side; the last one always."""
    if not places:
        return []
    least = share * (places[-1] - places[0])
    kept: list[float] = []
    for place in places[:-1]:
        if (not kept or place - kept[-1] >= least) and places[-1] - place >= least:
            kept.append(place)
    return [*kept, places[-1]]
