"""HTML from plain data: every text is escaped here, and nowhere else."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Markup:
    """Text that is HTML already."""

    text: str

    def __add__(self, other: Markup) -> Markup:
        return Markup(self.text + other.text)


Content = str | Markup
NOTHING = Markup("")
MANY_CLASSES = 60
"""With more classes the page has no row or column for each: their figures are in the files alone."""
_COLUMNS = 10


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What is shown.
        small: A second line, smaller.
        value: The number behind it, unrounded; None without one.
        strong: Whether it stands out.
    """

    text: Content
    small: Content = ""
    value: float | None = None
    strong: bool = False


def escaped(content: Content) -> str:
    """HTML of a text, or of what is HTML already."""
    return content.text if isinstance(content, Markup) else html.escape(content, quote=True)


def element(name: str, *contents: Content, **attributes: str) -> Markup:
    """An element; ``class_`` is its class, other underscores in attributes' names are hyphens."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{given}>{''.join(map(escaped, contents))}</{name}>")


def png(path: Path, label: str) -> Markup:
    """A picture, whole inside the page."""
    content = base64.b64encode(path.read_bytes()).decode()
    return Markup(f'<img src="data:image/png;base64,{content}" alt="{escaped(label)}">')


def joined(parts: Sequence[Markup]) -> Markup:
    """Parts one below the other."""
    return Markup("\n".join(part.text for part in parts if part.text))


def bullets(lines: Sequence[Content], kind: str = "") -> Markup:
    """A list; nothing where there are no lines."""
    items = [element("li", line) for line in lines]
    attributes = {"class_": kind} if kind else {}
    return element("ul", *items, **attributes) if items else NOTHING


def table(
    heads: Sequence[Content], rows: Sequence[Sequence[Cell | Content]], caption: Content = "", text: bool = False
) -> Markup:
    """A table that scrolls in itself where the page is narrow; the first cell of each row is its heading.

    Args:
        heads: Of the columns.
        rows: Their cells.
        caption: Stands below it.
        text: Whether cells hold text, which wraps, instead of numbers.
    """
    below = element("p", caption, class_="note") if caption else NOTHING
    head = element("thead", element("tr", *(element("th", breakable(name), scope="col") for name in heads)))
    body = element(
        "tbody", *(element("tr", *(_cell(cell, i == 0, text) for i, cell in enumerate(row))) for row in rows)
    )
    attributes = {"class_": "words"} if text else {}
    return joined([element("div", element("table", head, body, **attributes), class_="scroll", tabindex="0"), below])


def in_parts(names: Sequence[str]) -> list[Sequence[str]]:
    """Columns that a printed page has room for."""
    return [names[i : i + _COLUMNS] for i in range(0, len(names), _COLUMNS)]


def _cell(cell: Cell | Content, first: bool, text: bool) -> Markup:
    if not isinstance(cell, Cell):
        cell = Cell(cell)
    attributes = {"scope": "row"} if first else {}
    if cell.value is not None and math.isfinite(cell.value):
        attributes["data_value"] = repr(cell.value)
    if cell.strong or text:
        attributes["class_"] = "strong" if cell.strong else "text"
    parts: list[Content] = [breakable(cell.text) if first else cell.text]
    if cell.small:
        parts.append(element("small", cell.small))
    return element("th" if first else "td", *parts, **attributes)


def breakable(content: Content) -> Markup:
    """A name that a browser may break behind its signs."""
    return Markup(re.sub(r"([_/=,-]|\.(?=\D))(?=[^\s<])", r"\1<wbr>", escaped(content)))


def data(name: str, value: Any) -> Markup:
    """Data for scripts and readers: JSON in an element that a browser does not run."""
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":  # a "</script>" in a text would end the element
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(f'<script type="application/json" id="{escaped(name)}">{text}</script>')


def _plain(value: Any) -> Any:
    """JSON knows no NaN and no infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
