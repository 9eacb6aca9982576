"""Streams of a sample on one clock: seconds, in which all begin together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.transforms.fields import as_tensor, changed, field

EDGE = "edge"
_LARGEST_DENOMINATOR = 10_000  # 30000/1001 frames, 22050/512 spectra a second


@dataclass(frozen=True)
class Stream:
    """A field that is sampled at even times: sample k is at k / rate seconds.

    Attributes:
        rate: Samples (frames, spectra) a second, above 0; a number or a fraction as text (``"30000/1001"``).
        axis: The axis that is time.
        pad: What stands where nothing was recorded: a number, or ``"edge"`` for the nearest sample.
        interpolation: Between samples when time is warped: ``"linear"``, or ``"nearest"`` for masks and classes.
    """

    rate: float | str
    axis: int = -1
    pad: float | str = 0.0
    interpolation: str = "linear"

    def __post_init__(self) -> None:
        try:
            rate = self.exact_rate
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            rate = Fraction(0)
        if rate <= 0:
            raise ConfigurationError(
                f"rate={self.rate!r} of a stream is not above 0: it is the samples a second. Set "
                'streams.<name>.rate to a number, or to a fraction as "30000/1001".'
            )
        if isinstance(self.pad, bool) or not (self.pad == EDGE or isinstance(self.pad, (int, float))):
            raise ConfigurationError(
                f"pad={self.pad!r} of a stream is no padding value. Set streams.<name>.pad to a number or to {EDGE!r}."
            )
        if self.interpolation not in ("linear", "nearest"):
            raise ConfigurationError(
                f"interpolation={self.interpolation!r} of a stream is unknown. Set streams.<name>.interpolation to "
                "linear or nearest."
            )

    @property
    def exact_rate(self) -> Fraction:
        """Samples a second: the fraction of a denominator up to 10,000 that is nearest to `rate`."""
        return Fraction(str(self.rate)).limit_denominator(_LARGEST_DENOMINATOR)


@dataclass(frozen=True)
class Events:
    """Times in seconds, in a field of floating-point numbers of any shape; (n, 2) are intervals (begin, end).

    The number of events stays, so that samples can be batched and pooled and what belongs to the events by position
    (classes) stays theirs: an event that falls outside is marked, not dropped. An interval that sticks out is cut.

    Attributes:
        absent: The mark of an event that is not there, below 0. Every time below 0 counts as absent and stays as it is.
    """

    absent: float = -1.0

    def __post_init__(self) -> None:
        if not self.absent < 0:
            raise ConfigurationError(
                f"absent={self.absent} of events is not below 0: it marks an event that is not there, and times from 0 "
                "on are events. Set streams.<name>.absent to e.g. -1."
            )


class Clock:
    """The streams and events of a sample.

    Args:
        streams: Path of a field → `Stream` or `Events`, or a mapping of their arguments: with ``rate`` a stream,
            without one events (``{}``).
        owner: The transform's name, for errors.

    Raises:
        ConfigurationError: An unknown argument, or no stream at all.
    """

    def __init__(self, streams: Mapping[str, Stream | Events | Mapping[str, Any]], owner: str) -> None:
        self._owner = f"{owner}(streams=…)"
        parsed = {str(path): self._parsed(str(path), value) for path, value in streams.items()}
        self.streams = {path: value for path, value in parsed.items() if isinstance(value, Stream)}
        self.events = {path: value for path, value in parsed.items() if isinstance(value, Events)}
        if not self.streams:
            raise ConfigurationError(
                f"{owner}(streams={dict(streams)}) names no stream, so nothing tells how long a sample lasts. Name "
                'one, e.g. streams={"audio": {"rate": 16000}}.'
            )

    def _parsed(self, path: str, value: Any) -> Stream | Events:
        if isinstance(value, (Stream, Events)):
            return value
        try:
            return Stream(**value) if "rate" in value else Events(**value)
        except TypeError as error:
            raise ConfigurationError(
                f"{self._owner}: {path!r}: {value!r} is neither a stream (rate, axis, pad, interpolation) nor events "
                f"(absent). Set streams.{path} to these arguments."
            ) from error

    @property
    def step(self) -> Fraction:
        """The least common period in seconds: the shortest time that is a whole number of samples in each stream."""
        rates = [stream.exact_rate for stream in self.streams.values()]
        return Fraction(math.lcm(*(r.denominator for r in rates)), math.gcd(*(r.numerator for r in rates)))

    def rates(self) -> str:
        """The streams with their rates, for errors."""
        return ", ".join(f"{path} at {stream.rate}/s" for path, stream in self.streams.items())

    def duration(self, sample: Any) -> Fraction:
        """Seconds that every stream of a sample lasts (the shortest's).

        Raises:
            SampleStructureError: A field is missing or lacks its axis, or streams differ by more than a period of the
                slowest.
        """
        lasting = {path: Fraction(self._length(sample, path)) / s.exact_rate for path, s in self.streams.items()}
        shortest, longest = min(lasting.values()), max(lasting.values())
        if longest - shortest > max(1 / stream.exact_rate for stream in self.streams.values()):
            listed = ", ".join(f"{path} {float(seconds):.3f} s" for path, seconds in lasting.items())
            raise SampleStructureError(
                f"the streams of a sample do not last equally long ({listed}), so a rate is wrong or they do not begin "
                f"and end together. Set the rates in {self._owner}, or let the dataset cut the streams to one length."
            )
        return shortest

    def _length(self, sample: Any, path: str) -> int:
        tensor, _ = as_tensor(field(sample, path, self._owner), path, self._owner)
        axis = self.streams[path].axis
        if not -tensor.ndim <= axis < tensor.ndim or not tensor.shape[axis]:
            raise SampleStructureError(
                f"the stream {path!r} has shape {tuple(tensor.shape)} and no samples along axis {axis}. Set "
                f"streams.{path}.axis to its time axis."
            )
        return tensor.shape[axis]

    def changed(
        self,
        sample: Any,
        of_stream: Callable[..., Tensor],
        of_times: Callable[[Tensor], Tensor],
        lasts: float,
    ) -> Any:
        """The sample on another clock.

        Args:
            sample: Any structure with the named fields; it is left as it was.
            of_stream: Maps a stream's tensor; called as ``of_stream(tensor, stream=stream)``.
            of_times: Maps times in seconds, float64, from the old clock to the new.
            lasts: Seconds of the new clock; events outside [0, lasts) are absent.

        Raises:
            SampleStructureError: A field is missing, or events are no floating-point numbers.
        """
        for path, stream in self.streams.items():
            sample = changed(sample, path, partial(of_stream, stream=stream), self._owner)
        for path, events in self.events.items():
            moved = partial(self._moved, path=path, events=events, of_times=of_times, lasts=lasts)
            sample = changed(sample, path, moved, self._owner)
        return sample

    def _moved(
        self, times: Tensor, path: str, events: Events, of_times: Callable[[Tensor], Tensor], lasts: float
    ) -> Tensor:
        if not times.is_floating_point():
            raise SampleStructureError(
                f"the events {path!r} are {times.dtype}, and times are floating-point seconds: let the dataset divide "
                f"positions by their rate, or leave {path!r} out of {self._owner}."
            )
        before = times.double()
        after = of_times(before)
        # A time is as exact as its dtype, before and after: one that was sample 0's may come out a little below 0.
        slack = 4 * torch.finfo(times.dtype).eps * (before.abs() + lasts)
        if times.ndim == 2 and times.shape[1] == 2:
            begin, end = after.unbind(1)
            inside = (begin < lasts - slack[:, 0]) & ((end > slack[:, 1]) | (begin >= -slack[:, 0]))
            inside = inside[:, None].expand_as(after)
            there = (before >= 0).all(dim=1, keepdim=True).expand_as(after)
        else:
            inside = (after >= -slack) & (after < lasts - slack)
            there = before >= 0
        moved = torch.where(inside, after.clamp(0.0, lasts), torch.full_like(after, events.absent))
        return torch.where(there, moved, before).to(times.dtype)


def at_positions(tensor: Tensor, stream: Stream, positions: Tensor) -> Tensor:
    """A stream read at positions between its samples.

    Args:
        tensor: The stream, n samples along its axis.
        stream: Its axis, padding and interpolation.
        positions: Float64 (m,), in samples; outside [0, n) stands the padding.

    Returns:
        The same dtype, m samples along the axis. Whole positions give samples exactly.
    """
    axis, n = stream.axis % tensor.ndim, tensor.shape[stream.axis]
    inside = (positions >= 0) & (positions < n)
    at = positions.clamp(0, n - 1)
    if stream.interpolation == "nearest" or tensor.dtype == torch.bool:
        at = (at + 0.5).floor().clamp(max=n - 1)
    below = at.floor()
    shape = [-1 if i == axis else 1 for i in range(tensor.ndim)]
    read = tensor.index_select(axis, below.long())
    if bool((at > below).any()):
        above = tensor.index_select(axis, (below + 1).clamp(max=n - 1).long())
        weight = (at - below).to(torch.float64 if tensor.dtype == torch.float64 else torch.float32).reshape(shape)
        blended = read.to(weight.dtype) * (1 - weight) + above.to(weight.dtype) * weight
        read = (blended if tensor.is_floating_point() else blended.round()).to(tensor.dtype)
    if stream.pad == EDGE or bool(inside.all()):
        return read
    return torch.where(inside.reshape(shape), read, torch.full((), float(stream.pad)).to(tensor.dtype))
