from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.transforms import Events, Stream, TemporalCrop, TemporalShift, TimeWarp
from lightning_diffaug.transforms.clock import Clock, at_positions

FPS, HZ = 8, 8000
STREAMS = {
    "video": {"rate": 8.0, "axis": 0},
    "audio": Stream(rate=8000.0),
    "onsets": Events(),
    "spans": {},
    "first": {},
}


def clip(frames: tuple[int, ...], seconds: float = 2.0) -> dict[str, Any]:
    """A flash in the video and a click in the audio at the begin of each of these frames, and events that say so."""
    video = torch.zeros(int(seconds * FPS), 3, 4, 4, dtype=torch.uint8)
    audio = torch.zeros(2, int(seconds * HZ))
    for number, frame in enumerate(frames):
        video[frame] = 100 + number
        audio[:, frame * HZ // FPS] = 0.5 + 0.1 * number
    onsets = torch.tensor([frame / FPS for frame in frames])
    spans = torch.stack([onsets, onsets + 0.25], dim=1)
    return {"video": video, "audio": audio, "onsets": onsets, "spans": spans, "first": frames[0] / FPS, "label": 4}


def flashes(sample: dict[str, Any]) -> list[float]:
    return [int(i) / FPS for i in sample["video"].float().mean(dim=(1, 2, 3)).nonzero()]


def clicks(sample: dict[str, Any]) -> list[float]:
    assert torch.equal(sample["audio"][0], sample["audio"][1])
    return [int(i) / HZ for i in sample["audio"][0].nonzero()]


def present(times: torch.Tensor) -> list[float]:
    return times[times >= 0].tolist()


@pytest.mark.parametrize("transform", [TemporalCrop(1.25, STREAMS), TemporalShift(1.0, STREAMS)])
def test_click_stays_at_the_flash_to_the_sample_and_the_event_at_both(transform: Any) -> None:
    found, lost = 0, 0
    for seed in range(40):
        sample = clip((2, 7, 12))
        torch.manual_seed(seed)
        moved = transform(sample)
        assert clicks(moved) == flashes(moved) == present(moved["onsets"])
        assert moved["onsets"].shape == (3,)
        assert moved["first"] == moved["onsets"][0]
        # what is there is what was there, in its order: the numbers of flash and click say which
        for number, time in enumerate(moved["onsets"].tolist()):
            lost += time < 0
            if time >= 0:
                found += 1
                assert (moved["video"][int(time * FPS)] == 100 + number).all()
                assert moved["audio"][0, int(time * HZ)] == pytest.approx(0.5 + 0.1 * number)
                assert moved["spans"][number].tolist() == [time, min(time + 0.25, len(moved["video"]) / FPS)]
    assert found > 20
    assert lost > 5


def test_crop_has_the_length_that_was_asked_and_draws_every_begin() -> None:
    transform, begins = TemporalCrop(1.25, STREAMS), set()
    torch.manual_seed(0)
    for _ in range(100):
        moved = transform(clip((6,)))
        assert moved["video"].shape == (10, 3, 4, 4)
        assert moved["audio"].shape == (2, 10_000)
        begins.add(6 / FPS - moved["first"])
    assert begins == {i / FPS for i in range(7)}


def test_centre_crop_draws_nothing() -> None:
    transform, state = TemporalCrop(1.0, STREAMS, centre=True), torch.get_rng_state()
    moved = transform(clip((6,)))
    assert moved["first"] == 0.25
    assert flashes(moved) == clicks(moved) == [0.25]
    assert torch.equal(torch.get_rng_state(), state)


def test_shift_draws_every_step_on_both_sides_and_keeps_lengths() -> None:
    transform, shifts = TemporalShift(0.3, STREAMS), set()
    torch.manual_seed(0)
    for _ in range(100):
        moved = transform(clip((8,)))
        assert moved["video"].shape == (16, 3, 4, 4)
        assert moved["audio"].shape == (2, 16_000)
        shifts.add(moved["first"] - 1.0)
    assert shifts == {-0.25, -0.125, 0.0, 0.125, 0.25}


@pytest.mark.parametrize(("pad", "wanted"), [(-7.0, [-7.0, -7.0, 1.0, 2.0]), ("edge", [1.0, 1.0, 1.0, 2.0])])
def test_what_comes_in_is_the_padding_of_the_stream(pad: Any, wanted: list[float]) -> None:
    transform = TemporalShift(2.0, {"x": Stream(rate=1.0, pad=pad)})
    torch.manual_seed(0)
    later = [moved for _ in range(50) if (moved := transform({"x": torch.tensor([1.0, 2.0, 3.0, 4.0])})["x"])[3] == 2.0]
    assert later
    assert all(moved.tolist() == wanted for moved in later)


def test_warped_flash_and_click_are_within_one_sample_of_the_event() -> None:
    transform, rates = TimeWarp(1.5, STREAMS), []
    for seed in range(60):
        sample = clip((4,))
        torch.manual_seed(seed)
        moved = transform(sample)
        assert moved["video"].shape == sample["video"].shape
        assert moved["audio"].shape == sample["audio"].shape
        rates.append(0.5 / moved["first"])
        # never lost: the strongest is the nearest sample, and what it spreads over is a sample as it lasts now
        sound, light = moved["audio"][0], moved["video"].float().mean(dim=(1, 2, 3))
        assert abs(int(light.argmax()) / FPS - moved["first"]) <= 0.5 / FPS + 1e-9
        assert max(abs(time - moved["first"]) for time in flashes(moved)) < 1 / rates[-1] / FPS
        assert abs(int(sound.argmax()) / HZ - moved["first"]) <= 0.5 / HZ + 1e-9
        assert max(abs(time - moved["first"]) for time in clicks(moved)) < 1 / rates[-1] / HZ
        assert moved["onsets"].tolist() == pytest.approx([moved["first"]])
        assert moved["spans"][0].tolist() == pytest.approx([moved["first"], moved["first"] * 1.5])
    assert 1 / 1.5 <= min(rates) < 0.75
    assert 1.33 < max(rates) <= 1.5
    assert abs(float(np.mean(np.log(rates)))) < 0.1, "as often slower as faster"


def test_warp_reads_a_ramp_at_the_right_times() -> None:
    seconds = torch.arange(1000, dtype=torch.float64) / 500
    streams = {
        "ramp": {"rate": 500, "pad": "edge"},
        "near": {"rate": 500, "pad": -1, "interpolation": "nearest"},
        "t": {},
    }
    torch.manual_seed(2)
    moved = TimeWarp(1.9, streams)({"ramp": seconds, "near": torch.arange(1000), "t": 1.0})
    rate = 1.0 / moved["t"]
    assert rate > 1.2
    inside = seconds * rate < 2 - 1 / 500
    assert torch.allclose(moved["ramp"][inside], seconds[inside] * rate)
    assert (moved["ramp"][seconds * rate >= 2] == seconds[-1]).all()
    assert (moved["near"] >= -1).all()
    assert torch.equal(moved["near"][inside], (seconds[inside] * rate * 500 + 0.5).floor().long())
    assert (moved["near"][seconds * rate >= 2] == -1).all()


@pytest.mark.parametrize(
    ("interpolation", "pad", "wanted"),
    [
        ("linear", 9.0, [9.0, 9.0, 1.0, 1.5, 3.0, 3.0, 9.0]),
        ("linear", "edge", [1.0, 1.0, 1.0, 1.5, 3.0, 3.0, 3.0]),
        ("nearest", 9.0, [9.0, 9.0, 1.0, 2.0, 3.0, 3.0, 9.0]),
    ],
)
def test_a_sample_lasts_until_the_next_and_then_comes_the_padding(
    interpolation: str, pad: Any, wanted: list[float]
) -> None:
    stream = Stream(rate=1.0, axis=0, pad=pad, interpolation=interpolation)
    positions = torch.tensor([-1.0, -0.5, 0.0, 0.5, 2.0, 2.9, 3.0], dtype=torch.float64)
    for dtype in (torch.float32, torch.float64, torch.float16):
        read = at_positions(torch.tensor([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]], dtype=dtype), stream, positions)
        assert read.dtype == dtype
        assert read[:, 0].tolist() == wanted


# Events ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_event_at_a_sample_goes_with_that_sample_whatever_its_rounding(dtype: torch.dtype) -> None:
    transform = TemporalCrop(0.1, {"x": {"rate": 10}, "t": Events(absent=-5.0)})
    sample = {"x": torch.arange(90), "t": torch.arange(90, dtype=dtype) / 10}
    seen = set()
    for seed in range(200):
        torch.manual_seed(seed)
        moved = transform(sample)
        (kept,) = moved["x"].tolist()
        seen.add(kept)
        assert (moved["t"] >= 0).nonzero().flatten().tolist() == [kept]
        assert moved["t"][kept] == pytest.approx(0.0, abs=1e-5)
        assert moved["t"].sum() == pytest.approx(-5.0 * 89, abs=1e-4)
    assert len(seen) > 60


def test_intervals_are_cut_or_absent_and_absent_ones_stay_so() -> None:
    spans = torch.tensor([[0.0, 0.5], [0.25, 1.25], [1.0, 1.5], [1.5, 2.0], [0.5, 1.5], [-3.0, -3.0]])
    transform = TemporalCrop(1.0, {"x": {"rate": 4}, "spans": {"absent": -2.0}}, centre=True)  # from 0.5 to 1.5
    moved = transform({"x": torch.zeros(8), "spans": spans})["spans"]
    assert moved.tolist() == [[-2, -2], [0, 0.75], [0.5, 1.0], [-2, -2], [0, 1.0], [-3, -3]]


# Clocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "step"),
    [
        ((8.0, 8000.0), Fraction(1, 8)),
        ((25, 16000), Fraction(1, 25)),
        ((12.5, 8000), Fraction(2, 25)),
        (("30000/1001", 48000), Fraction(1001, 6000)),
        ((29.97002997002997, 48000), Fraction(1001, 6000)),
        ((22050 / 512, 22050), Fraction(512, 22050)),
        ((3, 2), Fraction(1)),
        ((100 / 3,), Fraction(3, 100)),
    ],
)
def test_step_is_the_least_common_period(rates: tuple[Any, ...], step: Fraction) -> None:
    clock = Clock({str(i): Stream(rate=rate) for i, rate in enumerate(rates)}, "Test")
    assert clock.step == step
    assert all((clock.step * stream.exact_rate).denominator == 1 for stream in clock.streams.values())


@dataclass(frozen=True)
class Clip:
    streams: dict[str, Any]
    onset: float
    name: str = "a"


def test_structures_and_arrays_are_kept() -> None:
    streams = {"streams.video": {"rate": 8, "axis": 0}, "streams.audio": {"rate": 8000}, "onset": {}}
    made = clip((7,))
    sample = Clip({"video": made["video"].numpy(), "audio": made["audio"]}, 0.875)
    torch.manual_seed(0)
    moved = TemporalCrop(1.5, streams)(sample)
    assert isinstance(moved, Clip)
    assert isinstance(moved.streams["video"], np.ndarray)
    assert moved.streams["video"].shape == (12, 3, 4, 4)
    assert type(moved.onset) is float
    found = moved.streams["video"].mean(axis=(1, 2, 3)).nonzero()[0] / FPS
    assert found.tolist() == [moved.onset]
    pair = TemporalShift(0.25, {"0": {"rate": 8, "axis": 0}, "1": {"rate": 8000}})((made["video"], made["audio"], 3))
    assert type(pair) is tuple
    assert pair[2] == 3


@pytest.mark.parametrize("transform", [TemporalCrop(1.0, STREAMS), TemporalShift(1.0, STREAMS), TimeWarp(1.5, STREAMS)])
def test_same_seed_gives_the_same_two_draws_differ_and_the_source_stays(transform: Any) -> None:
    sample, before = clip((3, 8)), clip((3, 8))
    torch.manual_seed(0)
    drawn = [transform(sample) for _ in range(10)]
    torch.manual_seed(0)
    again = [transform(sample) for _ in range(10)]
    assert all(
        torch.equal(a["audio"], b["audio"]) and a["first"] == b["first"] for a, b in zip(drawn, again, strict=True)
    )
    assert len({one["first"] for one in drawn}) > 3
    for name, value in before.items():
        assert torch.equal(torch.as_tensor(sample[name]), torch.as_tensor(value))


# Errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: TemporalCrop(1.0, {"a": {"rate": 0}}), "rate=0 of a stream is not above 0"),
        (lambda: TemporalCrop(1.0, {"a": {"rate": "fast"}}), "rate='fast'"),
        (lambda: TemporalCrop(1.0, {"a": {"rate": float("nan")}}), "rate=nan"),
        (lambda: TemporalCrop(1.0, {"a": {"rate": 8, "pad": "mirror"}}), "pad='mirror'"),
        (lambda: TemporalCrop(1.0, {"a": {"rate": 8, "interpolation": "cubic"}}), "interpolation='cubic'"),
        (lambda: TemporalCrop(1.0, {"a": {"rate": 8, "dim": 1}}), "is neither a stream"),
        (lambda: TemporalCrop(1.0, {"a": {}}), "names no stream"),
        (lambda: TemporalCrop(1.0, {"a": {"rate": 8}, "t": {"absent": 0}}), "absent=0"),
        (lambda: TemporalCrop(1.1, STREAMS), r"every 0.125 s\. Set seconds to a multiple of that, e\.g\. 1\.125"),
        (lambda: TemporalCrop(0.0, STREAMS), r"TemporalCrop\(seconds=0.0\)"),
        (lambda: TemporalCrop(float("inf"), STREAMS), r"TemporalCrop\(seconds=inf\)"),
        (lambda: TemporalShift(float("inf"), STREAMS), r"TemporalShift\(max_seconds=inf\)"),
        (lambda: TemporalShift(0.1, STREAMS), "every 0.125 s only, so no shift is left"),
        (lambda: TemporalShift(1.0, {"v": {"rate": 29.97}, "a": {"rate": 8000}}), "every 100 s only"),
        (lambda: TimeWarp(1.0, STREAMS), "max_rate=1.0"),
        (lambda: TimeWarp(2.0, STREAMS), "max_rate=2.0"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(make: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        make()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"audio": torch.zeros(2, 8000)}, r"video 2.000 s, audio 1.000 s"),
        ({"audio": torch.zeros(())}, "no samples along axis -1"),
        ({"audio": torch.zeros(2, 0)}, "no samples along axis -1"),
        ({"audio": "sound.wav"}, "is a str and no tensor"),
        ({"onsets": torch.tensor([3])}, "the events 'onsets' are torch.int64"),
        ({"video": torch.zeros(8, 1, 1, 1), "audio": torch.zeros(2, 8000)}, "a sample lasts 1.000 s"),
    ],
)
def test_samples_that_do_not_fit_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(SampleStructureError, match=text):
        TemporalCrop(1.5, STREAMS)(clip((3,)) | change)
    lacking = clip((3,))
    del lacking["spans"]
    with pytest.raises(SampleStructureError, match="names the field 'spans', and the sample has none"):
        TimeWarp(1.5, STREAMS)(lacking)
