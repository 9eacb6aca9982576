"""What is let into the pool: each gate sees samples and conditions and names the rows that it rejects."""

from lightning_diffaug.gates.basic import Finite, InRange
from lightning_diffaug.gates.chain import Gate, judge

__all__ = ["Finite", "Gate", "InRange", "judge"]
