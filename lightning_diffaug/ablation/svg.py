"""Figures as files, and as SVG that can stand in a page among others."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from lightning_diffaug.ablation.canvas import BLUE, INK

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it is found, read aloud and small
    "svg.hashsalt": "lightning_diffaug",  # the same figure is the same file
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def save(figure: Figure, folder: Path, name: str) -> None:
    """Writes ``<name>.svg`` and ``<name>.png``, on white."""
    with _drawing():
        figure.savefig(folder / f"{name}.svg", facecolor="white", metadata=_NO_METADATA)
        figure.savefig(folder / f"{name}.png", facecolor="white", dpi=150)


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """An ``<svg>`` element for a page: no background, in the page's ink, scaled by it.

    Args:
        figure: The figure.
        name: Put before each id, so that no two elements of a page have the same.
        label: What it shows, for those who hear the page.
    """
    target = io.StringIO()
    with _drawing():
        figure.savefig(target, format="svg", metadata=_NO_METADATA)
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)  # it is for the whole page
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = text.replace(INK, "currentColor").replace(BLUE, f"var(--blue, {BLUE})")  # too dark on a dark page
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    said = html.escape(label, quote=True)
    return text.replace("<svg", f'<svg role="img" aria-label="{said}"', 1).strip()


@contextmanager
def _drawing() -> Iterator[None]:
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # of names in scripts that matplotlib's font lacks: boxes in the PNG, and letters in what a browser shows
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield
