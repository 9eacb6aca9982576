"""What all plots share: colours and markers, the figure with its texts, axes in per cent, legends."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lightning_diffaug.ablation.runs import BASELINE, CONTROL, OTHER_GENERATOR, SYNTHETIC

INK = "#2b2b2c"
"""Of all text and axes. No plot has another thing of this colour, so a page can put its own ink in its place."""
# Okabe and Ito's colours, which are told apart with every kind of colour vision; no two styles differ in colour alone.
BLUE, _ORANGE, _GREEN, _RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
_PURPLE, _SKY = "#cc79a7", "#56b4e9"
GREY = "#85868a"
BAND = 0.2
"""Opacity of an interval that is drawn as a band."""


@dataclass(frozen=True)
class Style:
    """How an arm is drawn.

    Attributes:
        colour: Its colour.
        marker: Its marker, as in matplotlib.
        dashes: Its line style, as in matplotlib.
    """

    colour: str
    marker: str
    dashes: Any = "-"


JUDGED = Style(BLUE, "o")
BEST_BASELINE = Style(_RED, "s", "--")
REAL_ONLY = Style(GREY, "v", ":")
STYLES: Mapping[str, Style] = {
    SYNTHETIC: JUDGED,
    BASELINE: BEST_BASELINE,
    CONTROL: Style(_ORANGE, "D", "-."),
    OTHER_GENERATOR: Style(_PURPLE, "^", (0, (5, 1, 1, 1, 1, 1))),
}
"""Of the roles that an arm can have."""
ROLE_NAMES: Mapping[str, str] = {
    SYNTHETIC: "synthetic",
    BASELINE: "no generator",
    CONTROL: "control: slots filled without a generator",
    OTHER_GENERATOR: "another kind of generator",
}
FAMILIES = (JUDGED, Style(_GREEN, "P", (0, (6, 1))), Style(_SKY, "X", (0, (3, 1))))
"""Of families of arms side by side; more of them no plot can hold."""
_WIDTH = 5.0  # inches: a phone shows it at three quarters of its size, and 9 points are still read
_NAME = 26  # characters in a line of a row's name


@dataclass(frozen=True)
class Value:
    """A mean with its interval, a share of 1 or a number as it is; ends are None where there is no interval."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Texts:
    """What is written on a plot.

    Attributes:
        title: What is shown.
        notes: What must be known to read it, such as what is equal and how many seeds there are.
        score: Name of the score, with its unit.
        share: Scores are shares of 1, and shown in per cent; else as they are.
        lower: Less is better.
    """

    title: str
    notes: str
    score: str
    share: bool = True
    lower: bool = False

    @property
    def scale(self) -> float:
        """What values are multiplied by to be shown."""
        return 100.0 if self.share else 1.0


def new_figure(height: float, texts: Texts) -> tuple[Figure, Axes]:
    """A figure with its title and notes above one pair of axes.

    Args:
        height: Of axes and legend, in inches.
        texts: What is written on it.
    """
    title, notes = textwrap.wrap(plain(texts.title), 50), textwrap.wrap(plain(texts.notes), 76)
    head = 0.08 + 0.19 * len(title) + 0.15 * len(notes)
    height += head
    figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="none")
    FigureCanvasAgg(figure)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, 0, 1, 1 - head / height))
    figure.text(0.01, 1 - 0.05 / height, "\n".join(title), fontsize=11, fontweight="bold", color=INK, va="top")
    below = 1 - (0.07 + 0.19 * len(title)) / height
    figure.text(0.01, below, "\n".join(notes), fontsize=8, color=INK, va="top")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    axes.tick_params(labelsize=9, colors=INK)
    for side in axes.spines:
        axes.spines[side].set_visible(side in ("left", "bottom"))
        axes.spines[side].set_color(INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(INK)
        axis.label.set_fontsize(9)
    axes.grid(color=GREY, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def in_per_cent(axis: Any, set_limits: Callable[..., Any], limits: tuple[float, float]) -> None:
    """Makes an axis one of per cents: nothing is below 0 or above 100, though an interval may reach there."""
    low, high = max(limits[0], 0.0), min(limits[1], 100.0)
    edge = 0.02 * (high - low)  # else markers at the ends are cut
    set_limits(low - edge * (limits[0] < 0), high + edge * (limits[1] > 100))
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
    axis.set_major_formatter(FuncFormatter(lambda value, _: "" if not 0 <= value <= 100 else f"{value:.4g}"))


def score_axis(texts: Texts, axis: Any, set_limits: Callable[..., Any], limits: tuple[float, float]) -> None:
    """Makes an axis one of scores: in per cent, or of numbers as they are."""
    if texts.share:
        in_per_cent(axis, set_limits, limits)
    else:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def handle(style: Style, label: str, hollow: bool = False) -> Line2D:
    """A marker for a legend."""
    face = "none" if hollow else style.colour
    return Line2D([], [], color=style.colour, markerfacecolor=face, marker=style.marker, linestyle="", label=label)


def add_legend(figure: Figure, axes: Axes, handles: Sequence[Line2D] | None = None) -> None:
    """Puts a legend below the axes, a line each: of `handles`, or of what is drawn."""
    found: Sequence[Any] = axes.get_legend_handles_labels()[0] if handles is None else handles
    labels = [textwrap.shorten(plain(str(one.get_label())), 72, placeholder=" …") for one in found]
    if labels:
        figure.legend(found, labels, loc="outside lower left", fontsize=8.5, frameon=False, labelcolor=INK)


def wrapped(name: str, lines: int = 3) -> str:
    """A row's name in a few short lines."""
    found = textwrap.wrap(plain(name), _NAME) or [""]
    if len(found) > lines:
        found = [*found[: lines - 1], found[lines - 1][: _NAME - 1] + "…"]
    return "\n".join(found)


def plain(text: str) -> str:
    """Text with no mathematics in it, whatever dollars it holds."""
    return text.replace("$", r"\$")
