"""The settings of an images server's client, checked at the door."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lightning_diffaug.errors import ConfigurationError

PATIENCE = 0.8
"""Share of ``refill.hang_timeout`` without a usable reply, after which a pass fails before its process is ended."""

OWN_FIELDS = ("model", "prompt", "n", "size", "response_format")
"""Fields of a request that the client fills itself."""

_LEAST = {
    "seed_bits": 1, "concurrency": 1, "retries": 0, "backoff": 0.0, "max_backoff": 0.0, "breaker_failures": 1,
    "breaker_cooldown": 0.0, "hang_timeout": 0.0, "timeout": 0.0, "max_reply_bytes": 1, "max_pixels": 1,
}  # fmt: skip


def check_settings(settings: Mapping[str, Any]) -> None:
    """Checks the arguments of `RemoteGenerator`.

    Raises:
        ConfigurationError: One is out of its range.
    """
    for name, least in _LEAST.items():
        value = settings[name]
        kinds = (int,) if isinstance(least, int) else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not value >= least:
            what = "whole number" if isinstance(least, int) else "number"
            raise ConfigurationError(
                f"generator.{name}={value!r} is no {what} from {least:g}. Set generator.{name} to one."
            )
    if settings["seed_bits"] > 63:
        raise ConfigurationError(
            f"generator.seed_bits={settings['seed_bits']} is above 63, the bits of a sample's seed. Set "
            "generator.seed_bits to 63 or less."
        )
    for name, share in (("timeout", PATIENCE), ("max_backoff", PATIENCE / 2)):
        value, hang = settings[name], settings["hang_timeout"]
        if not value < share * hang:
            raise ConfigurationError(
                f"generator.{name}={value:g} is not below {share:g} of refill.hang_timeout={hang:g} (which "
                "generator.hang_timeout repeats): the process would be taken for hung while it waits. Lower "
                f"generator.{name}, or raise refill.hang_timeout."
            )
    size, key_name, extra = settings["size"], settings["api_key_env"], settings["extra"]
    if size is not None and not re.fullmatch(r"\d+x\d+|auto", str(size)):
        raise ConfigurationError(f'generator.size={size!r} is no size. Set generator.size to e.g. "512x512".')
    if key_name is not None and not re.fullmatch(r"[A-Za-z_]\w*", str(key_name), flags=re.ASCII):
        raise ConfigurationError(  # it may be the key itself, which is not repeated here
            "generator.api_key_env is no name of an environment variable. It is the name, such as OPENAI_API_KEY; the "
            "key itself belongs in that variable."
        )
    for name in (*OWN_FIELDS, settings["seed_field"]):
        if name in extra:
            raise ConfigurationError(
                f"generator.extra.{name} is set by the generator itself. Leave it out; see generator.model, "
                "generator.size, generator.prompts, generator.seed_field and generator.response_format."
            )
