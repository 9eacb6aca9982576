"""Errors that say what is wrong, what follows from it and which argument to change."""

from __future__ import annotations


class ConfigurationError(ValueError):
    """A setting or a combination of settings that cannot work; the text names the key to change."""


class SampleStructureError(ConfigurationError):
    """The structure of the user's samples is ambiguous or not supported."""


class PoolError(RuntimeError):
    """The pool's folder cannot be used."""


class DamagedShardError(PoolError):
    """A slot's file is truncated, altered or not a shard at all."""


class PoolFormatError(PoolError):
    """The pool was written in a format that this version does not read."""


class GeneratorError(RuntimeError):
    """The generator raised, hung, or returned something that is not a sample."""


class TooFewAcceptedError(GeneratorError):
    """The gates reject nearly all that the generator makes; the text names them."""


class ShortWindowError(RuntimeError):
    """``when_short=error``: the pool has fewer slots than the epoch's window needs."""
