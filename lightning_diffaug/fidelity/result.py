"""What was measured: each figure with the same figure of real data beside it, and how many samples it is of."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_diffaug.errors import ConfigurationError

FILE = "fidelity.json"
PREFIX = "fidelity/"

OF_PAIRS: dict[str, tuple[str, str]] = {
    "mask_agreement": ("IoU of masks and what a segmenter of real pairs sees", "high"),
    "sync_offset": ("seconds between the beginnings of picture and sound", "low"),
    "scan_distance": ("distance from the scan to the cloud", "low"),
    "pair_agreement": ("partners that fit better than others do", "high"),
}
"""Those of samples with several fields, which are measured where it is asked for."""

METRICS: dict[str, tuple[str, str]] = {
    "frechet": ("Fréchet distance", "low"),
    "kid": ("kernel distance (KID)", "low"),
    "precision": ("precision", "high"),
    "recall": ("recall", "high"),
    "density": ("density", "as real"),
    "coverage": ("coverage", "high"),
    "vendi": ("Vendi score (kinds of samples)", "as real"),
    "within_class": ("distance within a class", "as real"),
    "class_agreement": ("of their class, for a classifier of real data", "high"),
    "trts": ("trained on real, tested on synthetic", "as real"),
    "tstr": ("trained on synthetic, tested on real", "high"),
    "caption_agreement": ("similarity to their caption", "as real"),
    "spectrum": ("difference of the spectrum, dB", "low"),
    "sharpness": ("sharpness over that of real", "as real"),
    "lpips": ("LPIPS within a class", "as real"),
    "closer_than_real": ("nearer to training data than real ones are", "low"),
    "authenticity": ("authentic", "high"),
    **OF_PAIRS,
}
"""Name → what it says, and what of it is good: low, high, or as with real data."""
_SHOWN_OF_A_CLASS = ("frechet", "precision", "recall", "coverage", "class_agreement")


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        value: Of the synthetic samples.
        real: The same of real samples that the reference does not hold; None where there is none.
        samples: Synthetic samples that it is of.
        real_samples: Real ones that `real` is of.
        reference: Real samples that both are compared with; 0 where nothing is compared.
        standard_error: Of `value`, where it is known.
        real_standard_error: Of `real`, where it is known.
        p: Probability of a `value` as bad as that, were samples like real ones; where it is tested.
        note: What is to be known of it.
    """

    value: float
    real: float | None
    samples: int
    real_samples: int
    reference: int = 0
    standard_error: float | None = None
    real_standard_error: float | None = None
    p: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Fidelity:
    """All that was measured of a set of samples.

    Attributes:
        measured: Figures by name (`METRICS`).
        absent: What could not be measured, and why.
        per_class: Class → its own figures.
        about: How it was measured: ``level`` (what real was compared with what real), ``features``, ``dimensions``,
            ``classes_absent`` (classes of the real data without a synthetic sample), ``classes_too_small``,
            ``least_per_class``, ``seed``, ``seconds``, and what of the samples was given.
    """

    measured: dict[str, Figure]
    absent: dict[str, str] = field(default_factory=dict)
    per_class: dict[str, dict[str, Figure]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """Flat figures, as logged: ``fidelity/<name>``, with ``…_real``, ``…_standard_error`` and ``…_p`` beside."""
        found: dict[str, float] = {}
        for name, one in self.measured.items():
            said = {"": one.value, "_real": one.real, "_standard_error": one.standard_error, "_p": one.p}
            found |= {f"{PREFIX}{name}{end}": value for end, value in said.items() if value is not None}
        found[f"{PREFIX}samples"] = float(max((one.samples for one in self.measured.values()), default=0))
        found[f"{PREFIX}classes_absent"] = float(len(self.about.get("classes_absent", ())))
        return found

    def to_json(self) -> dict[str, Any]:
        """``figures`` (flat) and ``details`` (all)."""
        return {"figures": self.figures(), "details": asdict(self)}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Fidelity:
        """The inverse of `to_json`.

        Raises:
            ConfigurationError: It is no such record.
        """
        try:
            details = said["details"]
            measured = {name: Figure(**one) for name, one in details["measured"].items()}
            per_class = {c: {name: Figure(**one) for name, one in of.items()} for c, of in details["per_class"].items()}
            return cls(measured, dict(details["absent"]), per_class, dict(details["about"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"this is no record of fidelity ({type(error).__name__}: {error}).") from error

    def write(self, path: Path) -> Path:
        """Writes it as JSON, whole or not at all."""
        part = path.with_name(f".{path.name}")
        part.write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)
        return path

    @classmethod
    def read(cls, path: Path) -> Fidelity:
        """The inverse of `write`.

        Raises:
            ConfigurationError: The file holds no such record.
        """
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{path} is no record of fidelity: {error}") from error

    def table(self) -> str:
        """All of it, to be read."""
        heads = ("", "synthetic", "real", "good", "n")
        lines = [heads, *(_line(name, one) for name, one in self.measured.items())]
        texts = [f"real: {self.about.get('level', '')}; features: {self.about.get('features', '')}"]
        texts += [f"{METRICS[name][0]}: {one.note}" for name, one in self.measured.items() if one.note]
        texts += [f"without {METRICS[name][0]}: {why}" for name, why in self.absent.items()]
        if missing := self.about.get("classes_absent"):
            texts.append(f"classes without a synthetic sample: {', '.join(missing)}")
        if small := self.about.get("classes_too_small"):
            least = self.about.get("least_per_class")
            texts.append(f"too small to be measured alone (fewer than {least} of a kind): {', '.join(small)}")
        said = [line for text in texts for line in textwrap.wrap(text, 100, subsequent_indent="  ")]
        return "\n".join([*_aligned(lines), *self._of_classes(), *said])

    def _of_classes(self) -> list[str]:
        if not self.per_class:
            return []
        lines: list[tuple[str, ...]] = [("by class, real in brackets", *_SHOWN_OF_A_CLASS, "n")]
        for name, found in self.per_class.items():
            shown = [found.get(key) for key in _SHOWN_OF_A_CLASS]
            cells = ["" if one is None else f"{_number(one.value)} ({_number(one.real)})" for one in shown]
            lines.append((f"  {name}", *cells, str(next(iter(found.values())).samples)))
        return _aligned(lines)


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width: the first to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(pairs))
        for pairs in (zip(line, widths, strict=True) for line in lines)
    ]


def _line(name: str, one: Figure) -> tuple[str, str, str, str, str]:
    title, good = METRICS[name]
    value = _number(one.value)
    value += "" if one.standard_error is None else f" ± {_number(one.standard_error)}"
    value += "" if one.p is None else f" (p {one.p:.2g})"
    return title, value, _number(one.real), good, str(one.samples)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
