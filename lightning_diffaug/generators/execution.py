"""How a denoiser is executed: number type, memory layout, compiled or not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.device import AUTO
from lightning_diffaug.generators.pipeline_load import beating
from lightning_diffaug.generators.protocol import Condition

DTYPES = (AUTO, "float32", "bfloat16")


@dataclass(frozen=True)
class Execution:
    """How a denoiser is executed while it samples.

    Attributes:
        dtype: Number type of its layers: ``"float32"``, ``"bfloat16"`` (autocast: weights and samples stay float32) or
            ``"auto"``: bfloat16 on a GPU that computes with it, else float32.
        channels_last: Whether its weights are laid out with channels last, which convolutions on a GPU's tensor cores
            want; ``"auto"``: on a GPU.
        compile: Whether it is compiled (`torch.compile`), which takes minutes at the first pass of each run and saves
            in each step.

    Raises:
        ConfigurationError: A value is none of these.
    """

    dtype: str = AUTO
    channels_last: bool | str = AUTO
    compile: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigurationError(
                f"dtype={self.dtype!r} is unknown: it is the number type of the denoiser's layers. Set generator.dtype "
                f"to one of {', '.join(DTYPES)}."
            )
        if self.channels_last != AUTO and not isinstance(self.channels_last, bool):
            raise ConfigurationError(
                f"channels_last={self.channels_last!r} is none of auto, true, false. Set "
                "generator.channels_last to one of them."
            )
        if not isinstance(self.compile, bool):
            raise ConfigurationError(
                f"compile={self.compile!r} is neither true nor false. Set generator.compile to one."
            )

    def on(self, device: torch.device) -> Execution:
        """The same with what ``"auto"`` means on a device."""
        cuda = device.type == "cuda"
        dtype, last = self.dtype, self.channels_last
        if dtype == AUTO:
            dtype = "bfloat16" if cuda and _computes_with_bfloat16(device) else "float32"
        return Execution(dtype, cuda if last == AUTO else last, self.compile)

    def key(self) -> dict[str, Any]:
        """What changes a sample, beside what has always been: {} for float32 in torch's own layout, not compiled."""
        return {name: value for name, value in vars(self).items() if value != vars(_PLAIN)[name]}

    def prepare(self, denoiser: Any, beat: Callable[[], None] = lambda: None) -> Any:
        """A denoiser that is executed so; `on` was called.

        Args:
            denoiser: On its device. Its layout is changed in place.
            beat: Called from time to time while it is compiled.
        """
        if self == _PLAIN:
            return denoiser
        if self.channels_last:
            for module in denoiser.modules():
                if isinstance(module, nn.Conv2d):  # torch carries the layout on from there
                    module.to(memory_format=torch.channels_last)
        return _Executed(denoiser, getattr(torch, self.dtype), self.compile, beat)


def _computes_with_bfloat16(gpu: torch.device) -> bool:
    """Asked without making it current, which would take memory of a GPU that this process may never use."""
    if (gpu.index or 0) >= torch.cuda.device_count():
        return False
    return torch.version.hip is not None or torch.cuda.get_device_properties(gpu).major >= 8


_PLAIN = Execution("float32", False, False)


class _Executed(nn.Module):
    """A denoiser in a number type, perhaps compiled; for the rest it is the denoiser itself."""

    def __init__(self, denoiser: nn.Module, dtype: torch.dtype, compiled: bool, beat: Callable[[], None]) -> None:
        super().__init__()
        self.denoiser = denoiser
        self._dtype = dtype
        self._compiled = compiled
        self._beat = beat
        self._sizes: set[torch.Size] = set()
        if compiled:
            # in the threads that the generator was given, not in a process for each core
            denoiser.compile(options={"compile_threads": torch.get_num_threads()})

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("denoiser"), name)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """See `Denoiser`; float32 whatever it was computed in."""
        low = self._dtype != torch.float32
        new = self._compiled and x_t.shape not in self._sizes
        with beating(self._beat) if new else contextlib.nullcontext():
            try:
                with torch.autocast(x_t.device.type, self._dtype, enabled=low):
                    prediction: Tensor = self.denoiser(x_t, t, condition)
            except Exception as error:
                if new and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise ConfigurationError(
                        f"the denoiser cannot be compiled here: {type(error).__name__}: {error}\nOn a CPU it takes a "
                        "C++ compiler (g++ or clang++, or the variable CXX). Set generator.compile=false."
                    ) from error
                raise
        self._sizes.add(x_t.shape)
        return prediction.float()
