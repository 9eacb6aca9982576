"""What is let into the pool: each gate sees samples and conditions and names the rows that it rejects."""

from lightning_diffaug.gates.basic import Finite, InRange, NotBlank
from lightning_diffaug.gates.chain import Gate, Judged, Verdict, judge, ranking
from lightning_diffaug.gates.copies import NotCopy, Unique

__all__ = [
    "Finite", "Gate", "InRange", "Judged", "NotBlank", "NotCopy", "Unique", "Verdict", "judge", "ranking",
]  # fmt: skip
