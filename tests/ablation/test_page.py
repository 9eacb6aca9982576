from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import browser
import pytest
from written_sweep import Arm, write_sweep

from lightning_diffaug.ablation.failed import write_failed
from lightning_diffaug.ablation.report import write_report

EVIL = 'mixed<script>alert("x")</script>'
ERROR = "out of memory </script><script>document.title = 'taken over'</script>"
ARMS = [
    Arm("real_only", 0.80),
    Arm("classical_mixup", 0.86, shift=-0.02),
    *(Arm("mixed", 0.88 + 0.1 * f * (1 - f), f, "synthetic") for f in (0, 0.25, 0.5, 1)),
    Arm("control", 0.85, 0.25, "control", 0.01),
    Arm(EVIL, 0.84, 0.25, "synthetic"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of eight arms and three seeds, one run of which failed; one arm's name and one error are markup."""
    sweep = write_sweep(tmp_path_factory.mktemp("page") / "sweep", ARMS, seeds=3)
    write_failed(sweep / "99", RuntimeError(ERROR), ["arm=mixed", f"+note={ERROR}"])
    return write_report(sweep).folder


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@dataclass
class Read(HTMLParser):
    """What a parser finds in the page."""

    tags: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    tables: list[list[list[tuple[str, str | None]]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __hash__(self) -> int:
        return id(self)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags[tag] += 1
        self.ids += [given["id"] or ""] if "id" in given else []
        self.sources += [given[key] or "" for key in ("src", "href", "xlink:href", "srcset") if key in given]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append(("", given.get("data-value")))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.tables and self.tables[-1] and self.tables[-1][-1] and self.lasttag in ("td", "th", "wbr"):
            said, value = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = said + data, value


@pytest.fixture(scope="module")
def read(text: str) -> Read:
    found = Read()
    found.feed(text)
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_page_asks_nobody_for_anything(read: Read, text: str) -> None:
    assert read.sources
    assert all(source.startswith(("data:", "#")) for source in read.sources)
    assert "@import" not in text
    assert "url(http" not in text
    assert not {"iframe", "link rel=stylesheet", "object", "embed", "base"} & read.tags.keys()


def test_no_two_elements_have_the_same_id(read: Read) -> None:
    assert [name for name, count in Counter(read.ids).items() if count > 1] == []


def test_text_of_arms_and_errors_is_no_markup(read: Read) -> None:
    assert read.tags["script"] == 3, "two of data, one of the page's own"
    said = " ".join("".join(read.texts).split())
    assert EVIL in said
    assert ERROR in said


def test_numbers_are_those_of_summary_csv(folder: Path, read: Read) -> None:
    heads, *rows = next(table for table in read.tables if table[0][-3][0] == "role")
    names = [head for head, _ in heads]
    columns = {
        "balanced accuracy, %": ("acc_balanced_", 1),
        "the same, class prior corrected, %": ("acc_balanced_corrected_", 1),
        "rare classes, %": ("acc_rare_", 1),
        "rare classes, class prior corrected, %": ("acc_rare_corrected_", 1),
        "macro AUROC, %": ("auroc_", 2),
    }
    assert names[1:6] == list(columns), "scores stand beside the arm's name, where a narrow page shows them"
    summary = {row["arm"]: row for row in _rows(folder / "summary.csv")}
    assert [row[0][0].strip() for row in rows] == list(summary)
    for row in rows:
        expected = summary[row[0][0].strip()]
        assert row[-1][0].strip() == expected["seeds"]
        for head, (prefix, digits) in columns.items():
            shown, value = row[names.index(head)]
            mean, low, high = (float(expected[prefix + end]) for end in ("mean", "ci95_low", "ci95_high"))
            assert value == repr(mean)
            assert shown == f"{100 * mean:.{digits}f} ± {50 * (high - low):.{digits}f}"


def test_all_data_are_in_the_page(folder: Path, text: str) -> None:
    for name in ("runs", "summary"):
        start = text.index(f'<script type="application/json" id="{name}">')
        said = json.loads(text[text.index(">", start) + 1 : text.index("</script>", start)])
        rows = _rows(folder / f"{name}.csv")
        assert len(said) == len(rows)
        for one, row in zip(said, rows, strict=True):
            assert one.keys() == row.keys()
            for key, value in row.items():
                assert one[key] == (value if isinstance(one[key], str) else float(value) if value else None)


def test_the_verdict_comes_first_and_names_both_references(read: Read) -> None:
    said = " ".join("".join(read.texts).split())
    assert "minus mixed-0, the best arm without a generator on validation data" in said or "Synthetic data help" in said
    assert said.index("the best arm without a generator") < said.index("Every arm")
    assert "1 run failed (listed below)" in said


def test_each_plot_is_written_as_svg_and_png_and_says_what_is_equal(folder: Path, read: Read) -> None:
    names = {"accuracy_against_fraction", "arms", "rare_classes", "per_class", "learning_curves"}
    for ending in ("svg", "png"):
        assert {path.stem for path in folder.glob(f"*.{ending}")} == names
    for name in names:
        said = " ".join((folder / f"{name}.svg").read_text().split())
        assert "equal optimiser steps (600)" in said
        assert "3 seeds" in said
    assert read.tags["svg"] == len(names)


def test_samples_are_in_the_page_once_an_arm_with_synthetic_ones(read: Read) -> None:
    pictures = [source for source in read.sources if source.startswith("data:image/png")]
    assert len(pictures) == sum(arm.fraction > 0 for arm in ARMS)


@pytest.mark.parametrize(("seeds", "said"), [(3, "± half the 95% t-interval"), (1, "without an interval over runs")])
def test_fidelity_is_shown_with_the_errors_that_are_known(tmp_path: Path, seeds: int, said: str) -> None:
    arms = [ARMS[0], *ARMS[3:5]]  # two with samples
    found = Read()
    found.feed((write_report(write_sweep(tmp_path / "sweep", arms, seeds)).folder / "report.html").read_text())
    texts = "".join(found.texts)
    note = next(text for text in found.texts if "the same figure of real samples" in text)
    assert said in note
    assert "standard error within a run (s.e.)" in note
    assert "s.e. 0.002, real 0.001, n 500" in texts, "of the kernel distance"
    heads = ["class", "mixed-0.25", "mixed-0.5"]
    distances = next(table for table in found.tables if [head.strip() for head, _ in table[0]] == heads)
    assert len(distances) == 11
    assert "Fréchet distance of each class; lower is better." in texts


def test_how_it_was_made_is_said(read: Read) -> None:
    said = "".join(read.texts)
    assert "python train.py -m experiment=ablation" in said
    assert "Windows were made in step with training" in said
    assert "The real test set was scored once in each run" in said


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    executable = browser.find()
    if executable is None:
        pytest.skip(f"none of {', '.join(browser.NAMES)} is installed")
    with browser.browser(executable, tmp_path / "profile") as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_without_errors_and_without_overflow(
    page: Any, folder: Path, width: int, dark: bool
) -> None:
    page.open(folder / "report.html", width, dark)
    assert [*page.of("Runtime.exceptionThrown"), *page.of("Runtime.consoleAPICalled"), *page.of("Log.entryAdded")] == []
    asked = [event["request"]["url"] for event in page.of("Network.requestWillBeSent")]
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert page.run("document.title") == "Do synthetic data help? sweep"
    assert page.run("document.documentElement.scrollWidth") <= width
    drawn = page.run("[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().height)")
    assert len(drawn) == 5
    assert min(drawn) > 150
    colour = page.run("getComputedStyle(document.querySelector('svg text')).fill")
    assert colour == page.run("getComputedStyle(document.body).color"), "plots are in the page's ink"
    if width == 390:
        size = page.run("parseFloat(getComputedStyle(document.querySelector('svg text')).fontSize)")
        scale = page.run(
            "(s => s.getBoundingClientRect().width / s.viewBox.baseVal.width)(document.querySelector('svg'))"
        )
        assert size * scale > 7, "in CSS pixels"


def test_a_browser_prints_it_with_every_table_on_the_paper(page: Any, folder: Path, tmp_path: Path) -> None:
    page.open(folder / "report.html", 720)  # about what A4 leaves between its margins, in CSS pixels
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.run("[...document.querySelectorAll('table')].every(t => t.getBoundingClientRect().right <= 720)")
    assert page.run("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert page.pdf(tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_a_button_saves_the_data(page: Any, folder: Path, tmp_path: Path) -> None:
    page.open(folder / "report.html")
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.run("document.querySelector('button[data-table=summary]').click()")
    path = tmp_path / "summary.csv"
    for _ in range(200):
        if path.exists() and path.stat().st_size:
            break
        page.run("new Promise(done => setTimeout(done, 20))")
    saved, written = _rows(path), _rows(folder / "summary.csv")
    assert [row["arm"] for row in saved] == [row["arm"] for row in written]
    assert [float(row["mean"]) for row in saved] == [float(row["mean"]) for row in written]


def test_what_a_sweep_has_not_is_left_out(tmp_path: Path) -> None:
    arms = [replace(arm, fraction=0.0, role="baseline") for arm in ARMS[:2]]
    sweep = write_sweep(tmp_path / "sweep", arms, seeds=1, samples=False)
    for path in sweep.glob("*/csv/metrics.csv"):
        path.unlink()
    found = Read()
    report = write_report(sweep)
    found.feed((report.folder / "report.html").read_text(encoding="utf-8"))
    said = "".join(found.texts)
    for absent in ("Learning curves", "Fidelity of the samples", "Samples", "Best fraction", "1 run failed"):
        assert absent not in said
    assert "Nothing to judge: no arm with synthetic data came to its end." in said
    assert "Fewer than 3 seeds" in said
    assert {path.stem for path in report.folder.glob("*.svg")} == {"arms", "rare_classes", "per_class"}


def test_plots_of_an_earlier_report_do_not_stay(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", ARMS[:2], seeds=1)
    folder = write_report(sweep).folder
    assert (folder / "learning_curves.svg").exists()
    (folder / "mine.svg").write_text("")
    for path in sweep.glob("*/csv/metrics.csv"):
        path.unlink()
    write_report(sweep)
    assert not (folder / "learning_curves.svg").exists()
    assert (folder / "mine.svg").exists()


def test_each_task_of_a_sweep_has_its_own_verdict_and_plots(tmp_path: Path) -> None:
    arms = [replace(arm, overrides=(f"real.shots={shots}",)) for shots in (5, 10) for arm in (ARMS[0], ARMS[3])]
    sweep = write_sweep(tmp_path / "sweep", arms, seeds=3)
    folder = write_report(sweep).folder
    found = Read()
    found.feed((folder / "report.html").read_text(encoding="utf-8"))
    assert (folder / "arms.svg").exists()
    assert (folder / "arms-2.svg").exists()
    said = "".join(found.texts)
    assert said.count("the only arm without a generator") >= 2
    assert "real.shots=5" in said
    assert len(set(found.ids)) == len(found.ids)
