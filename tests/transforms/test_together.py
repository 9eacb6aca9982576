"""The transforms of one sample chained, built from a configuration, and sent to a worker."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lightning_diffaug.randomness import seeded

HERE = "lightning_diffaug.transforms"
CONFIG = f"""
_target_: torchvision.transforms.v2.Compose
_convert_: all
transforms:
  - _target_: {HERE}.JointSpatial
    transform:
      - {{_target_: torchvision.transforms.v2.RandomHorizontalFlip, p: 0.5}}
      - {{_target_: torchvision.transforms.v2.RandomAffine, degrees: 20}}
    kinds: {{video: video, mask: mask}}
    stereo: audio
  - _target_: {HERE}.TimeWarp
    max_rate: 1.2
    streams: &streams
      video: {{rate: 8, axis: 0}}
      mask: {{rate: 8, axis: 0, interpolation: nearest}}
      audio: {{rate: 800}}
      onset: {{_target_: {HERE}.Events}}
  - _target_: {HERE}.TemporalCrop
    seconds: 0.75
    streams: *streams
  - _target_: {HERE}.JointRotation3D
    azimuth: angle
    max_degrees: 10
"""


def sample() -> dict[str, Any]:
    rng = torch.Generator().manual_seed(0)
    video = torch.rand(8, 3, 16, 16, generator=rng)
    audio = torch.randn(2, 800, generator=rng)
    return {"video": video, "mask": (video > 0.5).long(), "audio": audio, "onset": torch.tensor([0.5]), "angle": 0.2}


@pytest.fixture
def transform() -> Any:
    return instantiate(OmegaConf.create(CONFIG))


def test_chain_from_a_configuration_changes_all_parts(transform: Any) -> None:
    with seeded(3):
        moved = transform(sample())
    assert moved["video"].shape == (6, 3, 16, 16)
    assert moved["mask"].shape == (6, 3, 16, 16)
    assert set(moved["mask"].unique().tolist()) <= {0, 1}
    assert moved["audio"].shape == (2, 600)
    assert moved["angle"] != 0.2


def test_a_batchs_seed_decides_all_draws_also_after_pickling(transform: Any) -> None:
    made = []
    for one, seed in ((transform, 5), (pickle.loads(pickle.dumps(transform)), 5), (transform, 6)):
        with seeded(seed):
            made.append(one(sample()))
    first, again, other = made
    assert all(torch.equal(torch.as_tensor(first[name]), torch.as_tensor(again[name])) for name in first)
    assert not torch.equal(first["audio"], other["audio"])
    state = torch.get_rng_state()
    with seeded(7):
        transform(sample())
    assert torch.equal(torch.get_rng_state(), state)
