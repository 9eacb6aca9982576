"""Joint transforms: one draw of the random parameters for all modalities of a sample; and modality dropout.

Each maps a sample to a sample of the same structure and draws from torch's global random state, which the mix sets for
each batch: a resumed run sees what an uninterrupted one sees. Chain them with ``torchvision.transforms.v2.Compose``.
"""

from lightning_diffaug.transforms.clock import Events, Stream
from lightning_diffaug.transforms.modality_dropout import ModalityDropout, SampleModalityDropout
from lightning_diffaug.transforms.scene import JointFlip3D, JointRotation3D
from lightning_diffaug.transforms.spatial import JointSpatial
from lightning_diffaug.transforms.temporal import TemporalCrop, TemporalShift, TimeWarp

__all__ = [
    "Events", "JointFlip3D", "JointRotation3D", "JointSpatial", "ModalityDropout", "SampleModalityDropout", "Stream",
    "TemporalCrop", "TemporalShift", "TimeWarp",
]  # fmt: skip
