"""What is let into the pool: each gate sees samples and conditions and names the rows that it rejects."""

from lightning_diffaug.gates.aligned import InSync, MaskAgreement, PairAgreement, ThroughScan
from lightning_diffaug.gates.basic import Finite, InRange, NotBlank
from lightning_diffaug.gates.caption import CaptionAgreement
from lightning_diffaug.gates.chain import Gate, Judged, Verdict, judge, ranking
from lightning_diffaug.gates.contamination import NotHeldOut
from lightning_diffaug.gates.copies import NotCopy, Unique
from lightning_diffaug.gates.right_class import RightClass
from lightning_diffaug.gates.safety import Safety

__all__ = [
    "CaptionAgreement", "Finite", "Gate", "InRange", "InSync", "Judged", "MaskAgreement", "NotBlank", "NotCopy",
    "NotHeldOut", "PairAgreement", "RightClass", "Safety", "ThroughScan", "Unique", "Verdict", "judge", "ranking",
]  # fmt: skip
