"""A training set as a codec sees it, so that the fit need not know that it fits latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_diffaug.generators.codec import Codec
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import LABEL, FieldSpec, SampleSpec

LATENT = "latent"
_BATCH = 256


def latent_snapshot(snapshot: Snapshot, names: Sequence[str], codec: Codec) -> tuple[Snapshot, float]:
    """Encodes all samples, once.

    Args:
        snapshot: The samples.
        names: Fields that are encoded together, joined along their channels.
        codec: Encodes them.

    Returns:
        A snapshot with the field `LATENT` and the labels, and the factor by which latents were multiplied to have unit
        variance, which the noise schedule expects.
    """
    latents = torch.cat(
        [
            codec.encode(torch.cat([snapshot.unit(name, rows) for name in names], dim=1)).to("cpu", torch.float32)
            for rows in torch.tensor_split(torch.arange(len(snapshot)), max(1, -(-len(snapshot) // _BATCH)))
        ]
    )
    scale = 1.0 / max(float(latents.std()), 1e-6)
    shape = tuple(latents.shape[1:])
    spec = [FieldSpec(LATENT, LATENT, "tensor", "float32", shape, -1.0, 1.0)]  # this range is taken as it is
    fields = {LATENT: latents * scale}
    if snapshot.labels is not None:
        spec.append(snapshot.spec[LABEL])
        fields[LABEL] = snapshot.labels
    return Snapshot(SampleSpec(tuple(spec)), fields, snapshot.class_names, snapshot.label_values), scale
