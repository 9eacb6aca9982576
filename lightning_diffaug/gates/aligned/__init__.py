"""Gates for samples of several modalities: whether what belongs together is made together."""

from lightning_diffaug.gates.aligned.chamfer import ThroughScan
from lightning_diffaug.gates.aligned.mask import MaskAgreement
from lightning_diffaug.gates.aligned.pair import PairAgreement
from lightning_diffaug.gates.aligned.sync import InSync

__all__ = ["InSync", "MaskAgreement", "PairAgreement", "ThroughScan"]
