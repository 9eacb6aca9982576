"""Crop, shift and time-warp of all streams of a sample by the same seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.transforms.clock import Clock, Events, Stream, at_positions


class TemporalCrop(nn.Module):
    """Cuts the same part out of all streams of a sample.

    The begin is drawn uniformly from the multiples of the streams' least common period (``Clock.step``: 1/8 s for 8
    frames and 8,000 samples a second), so that it is a whole number of samples in each and they stay aligned to the
    sample. Times of events count from the begin; those outside are marked absent, see `Events`.

    Args:
        seconds: Length of the part; a multiple of the least common period.
        streams: Path of a field → `Stream` or `Events`, or a mapping of their arguments.
        centre: Takes the middle instead of drawing, for validation and test.

    Raises:
        ConfigurationError: `seconds` is no such multiple, or not above 0.
    """

    def __init__(
        self, seconds: float, streams: Mapping[str, Stream | Events | Mapping[str, Any]], centre: bool = False
    ) -> None:
        super().__init__()
        self.clock = Clock(streams, "TemporalCrop")
        self.seconds = seconds
        self.centre = centre
        step = self.clock.step
        self._steps = round(Fraction(str(seconds)) / step) if 0 < seconds < math.inf else 0
        if self._steps < 1 or abs(float(self._steps * step) - seconds) > 1e-6:
            nearest = float(max(self._steps, 1) * step)
            raise ConfigurationError(
                f"TemporalCrop(seconds={seconds}) is no whole number of samples in each stream ({self.clock.rates()}): "
                f"they have one together every {float(step):g} s. Set seconds to a multiple of that, e.g. {nearest:g}."
            )

    def forward(self, sample: Any) -> Any:
        """Cuts one sample; the given one is left as it was.

        Raises:
            SampleStructureError: It is shorter than the part, or has not the streams.
        """
        step = self.clock.step
        duration = self.clock.duration(sample)
        free = math.floor(duration / step) - self._steps
        if free < 0:
            raise SampleStructureError(
                f"a sample lasts {float(duration):.3f} s, and TemporalCrop cuts {self.seconds} s out of it. Set "
                "seconds to less, or let the dataset pad its samples."
            )
        begin = (free // 2 if self.centre else int(torch.randint(free + 1, ()))) * step
        lasts = self._steps * step

        def cut(tensor: Tensor, stream: Stream) -> Tensor:
            part = tensor.narrow(stream.axis, int(begin * stream.exact_rate), int(lasts * stream.exact_rate))
            return part.clone()  # else a batch keeps the whole

        return self.clock.changed(sample, cut, lambda times: times - float(begin), float(lasts))


class TemporalShift(nn.Module):
    """Moves all streams of a sample by the same time, later or earlier; their lengths stay.

    The time is drawn uniformly from the multiples of the streams' least common period in [-max_seconds, max_seconds],
    so it is a whole number of samples in each. What comes in is the stream's padding, what goes out is lost; events
    that go out are marked absent, see `Events`.

    Args:
        max_seconds: Longest time; at least the least common period.
        streams: Path of a field → `Stream` or `Events`, or a mapping of their arguments.

    Raises:
        ConfigurationError: The streams' least common period is above `max_seconds`.
    """

    def __init__(self, max_seconds: float, streams: Mapping[str, Stream | Events | Mapping[str, Any]]) -> None:
        super().__init__()
        self.clock = Clock(streams, "TemporalShift")
        self.max_seconds = max_seconds
        self._most = math.floor(Fraction(str(max_seconds)) / self.clock.step) if 0 < max_seconds < math.inf else 0
        if self._most < 1:
            raise ConfigurationError(
                f"TemporalShift(max_seconds={max_seconds}): the streams ({self.clock.rates()}) have a whole number of "
                f"samples together every {float(self.clock.step):g} s only, so no shift is left. Set max_seconds to "
                "that or more, or resample a stream to a rate that divides the other's."
            )

    def forward(self, sample: Any) -> Any:
        """Moves one sample; the given one is left as it was.

        Raises:
            SampleStructureError: It has not the streams.
        """
        lasts = float(self.clock.duration(sample))
        later = int(torch.randint(-self._most, self._most + 1, ())) * self.clock.step

        def moved(tensor: Tensor, stream: Stream) -> Tensor:
            positions = torch.arange(tensor.shape[stream.axis], dtype=torch.float64)
            return at_positions(tensor, stream, positions - int(later * stream.exact_rate))

        return self.clock.changed(sample, moved, lambda times: times + float(later), lasts)


class TimeWarp(nn.Module):
    """Plays all streams of a sample faster or slower by the same rate; their lengths stay.

    The rate r is drawn log-uniformly from [1 / max_rate, max_rate]. What was at t seconds is at t / r; the begin stays.
    Above 1 the end is the stream's padding, below 1 what comes after the end is lost, and its events are marked absent.
    Streams are read between their samples (`Stream.interpolation`): what one sample held is strongest in the sample
    nearest to its exact time, at most half a sample away, and spreads over 1 / r samples to either side. (With
    ``nearest`` and r above 1 single samples can be skipped.) Sound changes in pitch, as of a tape.

    Args:
        max_rate: Above 1 and below 2 (from there on, something of one sample could fall between those that are read).
        streams: Path of a field → `Stream` or `Events`, or a mapping of their arguments. They need no common period.

    Raises:
        ConfigurationError: `max_rate` is out of its range.
    """

    def __init__(self, max_rate: float, streams: Mapping[str, Stream | Events | Mapping[str, Any]]) -> None:
        super().__init__()
        self.clock = Clock(streams, "TimeWarp")
        self.max_rate = max_rate
        if not 1 < max_rate < 2:
            raise ConfigurationError(
                f"TimeWarp(max_rate={max_rate}) is not between 1 and 2: it is the highest rate that samples are played "
                "at, and 1 / max_rate the lowest. Set max_rate to e.g. 1.2."
            )

    def forward(self, sample: Any) -> Any:
        """Warps one sample; the given one is left as it was.

        Raises:
            SampleStructureError: It has not the streams.
        """
        lasts = float(self.clock.duration(sample))
        rate = self.max_rate ** (2 * float(torch.rand((), dtype=torch.float64)) - 1)

        def warped(tensor: Tensor, stream: Stream) -> Tensor:
            return at_positions(tensor, stream, torch.arange(tensor.shape[stream.axis], dtype=torch.float64) * rate)

        return self.clock.changed(sample, warped, lambda times: times / rate, lasts)
