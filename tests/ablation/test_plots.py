from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from lightning_diffaug.ablation.canvas import BEST_BASELINE, INK, JUDGED, REAL_ONLY, Texts, Value
from lightning_diffaug.ablation.plots import (
    Level,
    Line,
    OfClasses,
    Row,
    against_fraction,
    by_class,
    curves,
    dots,
)
from lightning_diffaug.ablation.svg import inline_svg, save

TEXTS = Texts("A title", "equal optimiser steps (600) · 5 seeds", "accuracy, %")
FRACTIONS = (0, 0.05, 0.1, 0.5, 1)


def _line(name: str, *places: float) -> Line:
    return Line(name, [(place, Value(0.9, 0.88, 0.92)) for place in places], JUDGED)


def _boxes(figure: Figure) -> list[tuple[str, Any]]:
    """Every text that is drawn, with its box in pixels."""
    canvas: Any = figure.canvas
    canvas.draw()
    renderer = canvas.get_renderer()
    axes = figure.axes[0]
    texts = [*figure.texts, axes.xaxis.label, axes.yaxis.label]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]


def _overlaps(figure: Figure) -> list[tuple[str, str]]:
    boxes = _boxes(figure)
    return [
        (one, other)
        for i, (one, a) in enumerate(boxes)
        for other, b in boxes[i + 1 :]
        if a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1
    ]


PLOTS = {
    "fraction": lambda: against_fraction(
        [_line("mixed", *FRACTIONS), _line("mixed (real.shots=10, generator.fit.steps=50)", 0.25)],
        [Level("best: classical_mixup", Value(0.95), BEST_BASELINE), Level("real only", Value(0.9), REAL_ONLY)],
        TEXTS,
    ),
    "dots": lambda: dots(
        [
            Row(f"an_arm_with_a_long_name-{n} (real.shots=10, generator.fit.steps=50)", Value(n / 20), "baseline")
            for n in range(20)
        ],
        TEXTS,
        "corrected",
        "raw",
    ),
    "classes": lambda: by_class(
        [f"class {c} (80)" for c in range(20)],
        [OfClasses(f"arm {n}", [Value(0.9, 0.8, 1.0)] * 20, style) for n, style in enumerate((JUDGED, REAL_ONLY))],
        TEXTS,
    ),
    "curves": lambda: curves([_line("mixed", 60, 120, 600)], TEXTS),
}


@pytest.mark.parametrize("name", PLOTS)
def test_no_text_lies_on_another_or_outside(name: str) -> None:
    figure = PLOTS[name]()
    assert _overlaps(figure) == []
    width, height = figure.canvas.get_width_height()
    for text, box in _boxes(figure):
        assert box.x0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y0 >= -1, text
        assert box.y1 <= height + 1, text


def test_scores_above_one_are_not_on_the_axis_though_an_interval_reaches_there() -> None:
    figure = against_fraction([Line("mixed", [(f, Value(0.99, 0.9, 1.3)) for f in FRACTIONS], JUDGED)], [], TEXTS)
    assert figure.axes[0].get_ylim()[1] < 101
    figure = dots([Row("a", Value(0.1, -0.5, 0.7), "baseline")], TEXTS, "", "")
    assert figure.axes[0].get_xlim()[0] > -5


def test_arms_are_sorted_by_their_value() -> None:
    figure = dots(
        [Row(name, Value(value), "baseline") for name, value in zip("abc", (0.5, 0.9, 0.7), strict=True)], TEXTS, "", ""
    )
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "c", "b"], "from below"


def test_single_points_of_one_fraction_stand_side_by_side() -> None:
    figure = against_fraction([_line("mixed", 0, 0.25, 0.5), _line("a", 0.25), _line("b", 0.25)], [], TEXTS)
    places = {line.get_label(): line.get_xdata()[0] for line in figure.axes[0].lines}  # type: ignore[index]
    assert len({places["a"], places["b"], 0.25}) == 3
    assert abs(places["a"] - 0.25) < 0.03


def test_a_name_with_dollars_and_one_in_another_script_are_drawn(tmp_path: Path) -> None:
    rows = [Row(name, Value(0.5), "baseline") for name in ("$x$ and $\\nonsense{$", "猫")]
    figure = dots(rows, TEXTS, "", "")
    save(figure, tmp_path, "plot")
    text = (tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert "猫" in text
    assert "nonsense" in text


def test_an_inline_plot_is_one_of_many_in_a_page() -> None:
    both = inline_svg(PLOTS["fraction"](), "one", "a label") + inline_svg(PLOTS["fraction"](), "two", 'of "two"')
    ids = re.findall(r'\bid="([^"]+)"', both)
    assert ids
    assert max(Counter(ids).values()) == 1
    used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', both)
    assert {one or other for one, other in used} <= set(ids)
    assert both.count('<svg role="img"') == 2
    assert 'aria-label="of &quot;two&quot;"' in both
    assert INK not in both
    assert "currentColor" in both
    assert "<style" not in both
    assert not re.search(r'<svg[^>]* (width|height)="', both)


def test_the_same_plot_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(PLOTS["curves"](), tmp_path, name)
    assert (tmp_path / "a.svg").read_text() == (tmp_path / "b.svg").read_text()
