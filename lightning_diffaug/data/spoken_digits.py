"""Spoken digits in many voices, by the speech synthesiser eSpeak NG: sound that needs no download."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_diffaug.data import espeak_process
from lightning_diffaug.data.sound import fitted, resampled
from lightning_diffaug.errors import ConfigurationError

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = (
    "en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc", "en-029",
)  # fmt: skip
TAKES = ((165, 50), (190, 62))
"""Words a minute and pitch (0 … 100, 50 is the voice's own) in which each voice says each digit."""

_AUDIBLE = 0.02
"""Of the loudest sample: what is below it before the word is silence."""
_PEAK = 0.9
_TIMEOUT = 300.0


@dataclass(frozen=True)
class SpokenDigits:
    """Utterances of single digits.

    Attributes:
        audio: float32 (n, samples) in [-1, 1], of one loudness; the word begins at the first sample.
        digit: int64 (n,), 0 … 9.
        voice: Who says it, such as ``"en-gb-scotland+Annie"``: accent and speaker.
    """

    audio: Tensor
    digit: Tensor
    voice: list[str]


def spoken_digits(sample_rate: int = 8000, seconds: float = 0.8) -> SpokenDigits:
    """All digits by all voices of eSpeak NG, twice each: about 100 speakers in 8 accents of English, 2,000 utterances.

    The same in each call with one version of the package; it takes about two seconds.

    Args:
        sample_rate: Samples a second.
        seconds: Length of each; longer utterances are cut and faded out, shorter ones followed by silence.

    Returns:
        The utterances, voice by voice.

    Raises:
        ConfigurationError: The package espeakng-loader is missing or does not work here, or a value is out of range.
    """
    library, data = _espeak()
    speakers = sorted(path.name for path in (data / "voices" / "!v").iterdir() if not path.name.startswith("."))
    voices = [f"{ACCENTS[i % len(ACCENTS)]}+{speaker}" for i, speaker in enumerate(speakers)]
    wanted = [(digit, voice, *take) for voice in voices for digit in range(len(WORDS)) for take in TAKES]
    rate, spoken = _speak(library, data, [(WORDS[digit], *rest) for digit, *rest in wanted])
    length = round(sample_rate * seconds)
    audio = [_utterance(samples, rate, sample_rate, length) for samples in spoken]
    return SpokenDigits(
        torch.from_numpy(np.stack(audio)),
        torch.tensor([digit for digit, *_ in wanted]),
        [voice for _, voice, *_ in wanted],
    )


def speaker_family(voice: str) -> str:
    """What voices that are variations of one another share: ``"en-us+iven2"`` and ``"en-gb+iven4"`` are ``"iven"``."""
    return re.sub(r"\d+$", "", voice.rpartition("+")[2]).lower()


def _espeak() -> tuple[Path, Path]:
    """Paths of the library and of its data, without loading either."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise ConfigurationError(
            "the spoken digits are made by the package espeakng-loader, which is not installed. Run: pip install "
            "'lightning-diffaug[audio]', or set real.root to a folder of sounds."
        )
    loader = importlib.import_module("espeakng_loader")
    return Path(loader.get_library_path()), Path(loader.get_data_path())


def _speak(
    library: Path, data: Path, utterances: list[tuple[object, ...]]
) -> tuple[int, list[npt.NDArray[np.float32]]]:
    """Sample rate, and the samples of each utterance in [-1, 1]."""
    request = json.dumps({"library": str(library), "data": str(data), "utterances": utterances})
    command = [sys.executable, "-I", str(espeak_process.__file__)]
    process = subprocess.run(command, input=request.encode(), capture_output=True, timeout=_TIMEOUT, check=False)
    if process.returncode != 0:
        raise ConfigurationError(
            f"the package espeakng-loader does not speak here ({process.stderr.decode(errors='replace').strip()}). "
            "Reinstall it, or set real.root to a folder of sounds."
        )
    said, at = process.stdout, 4
    (rate,) = struct.unpack_from("=I", said)
    found = []
    for _ in utterances:
        (count,) = struct.unpack_from("=I", said, at)
        found.append(np.frombuffer(said, np.int16, count, at + 4).astype(np.float32) / np.float32(32768))
        at += 4 + 2 * count
    return rate, found


def _utterance(samples: npt.NDArray[np.float32], rate: int, to: int, length: int) -> npt.NDArray[np.float32]:
    audible = np.flatnonzero(np.abs(samples) >= _AUDIBLE * np.abs(samples).max(initial=0))
    sound = resampled(samples[audible[0] :], rate, to)
    return fitted(sound * (_PEAK / np.abs(sound).max()), length, to)
