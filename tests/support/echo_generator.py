"""A generator that shows what it was given to start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Echo:
    """Returns the real samples it starts from; what is to be made anew becomes (nearly) white."""

    def __init__(self, source: str = "image", repaint: float | None = None) -> None:
        self.source = source
        self.repaint = repaint

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        start: Tensor = condition["start"]
        return start if self.repaint is None else torch.where(condition["mask"] > 0.5, start, 0.999)
