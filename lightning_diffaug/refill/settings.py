"""Who fills the pool, and with what manners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from lightning_diffaug.config_check import argument_types, check_value
from lightning_diffaug.errors import ConfigurationError


@dataclass(frozen=True)
class RefillSettings:
    """Who fills the pool, and with what manners.

    Attributes:
        mode: ``"local"`` (a process beside training), ``"sync"`` (an epoch's slots are there before the epoch; exactly
            reproducible) or ``"none"`` (use what the pool holds).
        ahead: Slots made beyond those that the next window needs; then the process sleeps. ``sync`` makes none ahead.
        nice: Niceness of the process, 0 … 19.
        threads: Threads it computes with.
        duty: Share of the time in which the generator may compute, in (0, 1]; 1 never rests. For a generator that
            shares a device with the trainer, where `nice` does nothing. It rests between steps and batches where the
            generator says that it has come so far, else between slots. The fit, for which training waits, and
            ``sync``, whose slots it waits for, are not slowed.
        attempts: How often a rejected sample is made again.
        min_acceptance: Share, in [0, 1), of the samples made for four slots in a row that has to pass the gates. Below
            it filling ends, with a text that says which gate rejected how much and what to change; training goes on
            with what is there. 0: it never ends so.
        max_restarts: Restarts in a row without a slot made, after which the process is given up.
        backoff: Seconds before the first restart; doubled at each further one, up to a minute.
        hang_timeout: Seconds without progress (a step of the fit, a pass of the generator) after which the process
            counts as hung and is restarted. Passes get twice as long after each such restart: a slow one gets through.
        log_file: Where its output is kept; None: with the run's own files, which go with the run.
    """

    mode: Literal["local", "sync", "none"] = "local"
    ahead: int = 4
    nice: int = 19
    threads: int = 1
    duty: float = 1.0
    attempts: int = 4
    min_acceptance: float = 0.05
    max_restarts: int = 5
    backoff: float = 1.0
    hang_timeout: float = 120.0
    log_file: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("local", "sync", "none"):
            raise ConfigurationError(
                f"refill={self.mode!r} is none of local, sync, none: it says who fills the pool. Set refill=local for "
                "a process beside training."
            )
        for name, hint in argument_types(type(self)).items():
            object.__setattr__(self, name, check_value(getattr(self, name), hint, f"refill.{name}"))
        bounds = {
            "ahead": (self.ahead, 0), "nice": (self.nice, 0), "threads": (self.threads, 1),
            "attempts": (self.attempts, 1), "max_restarts": (self.max_restarts, 0),
        }  # fmt: skip
        for name, (value, least) in bounds.items():
            if value < least:
                raise ConfigurationError(
                    f"refill.{name}={value} is below {least}. Set refill.{name} to {least} or more."
                )
        if self.nice > 19:
            raise ConfigurationError(f"refill.nice={self.nice} is above 19, the lowest priority. Set refill.nice=19.")
        if not 0.0 < self.duty <= 1.0:
            raise ConfigurationError(
                f"refill.duty={self.duty!r} is not in (0, 1]: it is the share of the time in which the generator may "
                "compute. Set refill.duty to e.g. 0.5, or to 1 for no rest."
            )
        if not 0.0 <= self.min_acceptance < 1.0:
            raise ConfigurationError(
                f"refill.min_acceptance={self.min_acceptance!r} is not in [0, 1): it is the share of the samples made "
                "below which filling ends. Set refill.min_acceptance to e.g. 0.05, or to 0 to go on whatever is "
                "rejected."
            )
        if not self.hang_timeout > 0 or not self.backoff >= 0:
            raise ConfigurationError(
                f"refill.hang_timeout={self.hang_timeout} is not above 0, or refill.backoff={self.backoff} below 0: "
                "both are seconds. Set them so."
            )

    @property
    def slots_ahead(self) -> int:
        """Slots made beyond the needed ones: none with ``sync``, whose runs are the same to the last slot made."""
        return 0 if self.mode == "sync" else self.ahead

    @property
    def working_share(self) -> float:
        """Share of the time in which the generator computes while training goes on; with ``sync`` training waits."""
        return 1.0 if self.mode == "sync" else float(self.duty)

    @classmethod
    def of(cls, value: str | Mapping[str, Any] | RefillSettings) -> RefillSettings:
        """Settings from a mode's name or from a mapping of settings.

        Raises:
            ConfigurationError: A key is not known, or a value is out of bounds.
        """
        if isinstance(value, RefillSettings):
            return value
        if isinstance(value, str):
            return cls(mode=value)  # type: ignore[arg-type]
        known = [field.name for field in fields(cls)]
        unknown = [key for key in value if key not in known]
        if unknown:
            raise ConfigurationError(f"refill.{unknown[0]} is not a setting; there are {', '.join(known)}.")
        return cls(**value)
