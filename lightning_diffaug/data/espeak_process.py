"""A process of its own that speaks: ``python espeak_process.py``, a request on stdin, samples on stdout.

eSpeak NG keeps state between utterances (a voice's flutter), which nothing resets: only a fresh process says the same
things the same way each time. It needs the standard library alone.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from typing import Any

# Of eSpeak NG's speak_lib.h
_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000
_UTF8 = 1
_RATE, _PITCH = 1, 3


def speak(request: dict[str, Any]) -> bytes:
    """Speaks some texts.

    Args:
        request: ``library`` and ``data``, the paths of eSpeak NG, and ``utterances``, a list of (text, voice, words a
            minute, pitch 0 … 100).

    Returns:
        The sample rate in Hz, then of each utterance its length and its samples: uint32 and int16 in native order.

    Raises:
        OSError: The library cannot be loaded, has no data, or does not know a voice.
    """
    library = ctypes.CDLL(request["library"])
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, request["data"].encode(), _DO_NOT_EXIT)
    if rate <= 0:
        raise OSError(f"eSpeak NG does not start with its data in {request['data']}")
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # its noise is seeded by the clock
    heard: list[bytes] = []

    def listen(samples: int | None, count: int, _: int | None) -> int:
        if samples and count > 0:
            heard.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(listen)
    library.espeak_SetSynthCallback(callback)
    said = [struct.pack("=I", rate)]
    for text, voice, words, pitch in request["utterances"]:
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise OSError(f"eSpeak NG has no voice {voice!r}")
        library.espeak_SetParameter(_RATE, words, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        heard.clear()
        encoded = text.encode()
        size = ctypes.c_size_t(len(encoded) + 1)
        if library.espeak_Synth(encoded, size, 0, 0, 0, _UTF8, None, None) != 0:
            raise OSError(f"eSpeak NG cannot say {text!r} as {voice!r}")
        samples = b"".join(heard)
        said += [struct.pack("=I", len(samples) // 2), samples]
    library.espeak_Terminate()
    return b"".join(said)


if __name__ == "__main__":
    try:
        sys.stdout.buffer.write(speak(json.load(sys.stdin)))
    except OSError as error:
        sys.exit(str(error))
