"""Waveforms of any rate and length as waveforms of one rate and length."""

from __future__ import annotations

from functools import lru_cache
from math import gcd

import numpy as np
import numpy.typing as npt
from scipy.signal import firwin, resample_poly

_FADE = 0.01
"""Seconds over which a sound that is cut fades out: a step would be a click."""


def resampled(sound: npt.NDArray[np.float32], rate: int, to: int) -> npt.NDArray[np.float32]:
    """A sound (…, samples) at another sample rate in Hz, by a polyphase low-pass filter; float32."""
    if rate == to:
        return sound.astype(np.float32)
    up, down = to // gcd(rate, to), rate // gcd(rate, to)
    return np.asarray(resample_poly(sound, up, down, axis=-1, window=_low_pass(max(up, down))), dtype=np.float32)


@lru_cache(maxsize=16)
def _low_pass(factor: int) -> npt.NDArray[np.float64]:
    """The filter that scipy would design anew for each sound."""
    return np.asarray(firwin(20 * factor + 1, 1 / factor, window=("kaiser", 5.0)))


def fitted(sound: npt.NDArray[np.float32], length: int, rate: int) -> npt.NDArray[np.float32]:
    """A sound (…, samples) cut and faded out, or followed by silence: (…, length)."""
    missing = length - sound.shape[-1]
    if missing >= 0:
        return np.pad(sound, [(0, 0)] * (sound.ndim - 1) + [(0, missing)])
    fade = min(round(_FADE * rate), length)
    cut = sound[..., :length].copy()
    cut[..., length - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return cut
