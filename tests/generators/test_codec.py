"""Denoising in the latent space of an autoencoder that is trained here, on real digits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exact_denoiser import GaussianDenoiser
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from lightning_diffaug.conditions.derived import edges
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import DiffusionGenerator, VaeCodec
from lightning_diffaug.generators.codec import codec_hash
from lightning_diffaug.generators.controls import Controls
from lightning_diffaug.generators.latents import LATENT, latent_snapshot
from lightning_diffaug.generators.loop import sample
from lightning_diffaug.generators.sampler import whole
from lightning_diffaug.generators.schedulers import make_scheduler
from lightning_diffaug.snapshot import Snapshot

N = 100


@pytest.fixture(scope="module")
def vae(digits: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder 1x8x8 → 4x4x4, whose scaling factor is left at diffusers' default, far from right."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(
            in_channels=1, out_channels=1, latent_channels=4, sample_size=8, block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4,
            mid_block_add_attention=False,
        )  # fmt: skip
        optimizer, images, steps = torch.optim.AdamW(vae.parameters()), digits.unit("image"), 250
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
            batch = images[torch.randint(len(images), (64,))]
            latents = vae.encode(batch).latent_dist
            loss = functional.mse_loss(vae.decode(latents.sample()).sample, batch) + 1e-4 * latents.kl().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    folder = tmp_path_factory.mktemp("vae")
    vae.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def make(vae: Path, digits: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DiffusionGenerator]:
    """``make(**settings)``: a generator that is fitted in the latent space."""
    fit = {"steps": 150, "augment_p": 0.0, "channels": [16, 32]}
    folder = tmp_path_factory.mktemp("fitted")
    DiffusionGenerator(codec=str(vae), fit=fit).fit(digits, folder, lambda step, total: None)

    def loaded(**settings: Any) -> DiffusionGenerator:
        generator = DiffusionGenerator(codec=str(vae), fit=fit, **settings)
        generator.load(folder)
        return generator

    loaded.folder = folder  # type: ignore[attr-defined]
    return loaded


def _rms(difference: Tensor) -> float:
    return float(difference.pow(2).mean().sqrt())


def test_latents_are_decoded_to_what_was_encoded_and_have_unit_variance(vae: Path, digits: Snapshot) -> None:
    encoded, scale = latent_snapshot(digits, ["image"], VaeCodec.load(vae))
    latents = encoded.unit(LATENT)
    assert latents.shape == (len(digits), 4, 4, 4)
    assert abs(float(latents.std()) - 1.0) < 1e-3
    assert scale > 2.0  # the autoencoder's own factor is not right
    assert torch.equal(encoded.labels, digits.labels)
    codec, images = VaeCodec.load(vae, scale=scale), digits.unit("image", torch.arange(N))
    torch.testing.assert_close(codec.encode(images), latents[:N], atol=1e-5, rtol=1e-4)
    assert _rms(codec.decode(latents[:N]) - images) < 0.3 < _rms(images)


def test_samples_of_a_latent_denoiser_show_the_class(make: Any, agreement: Callable[..., float]) -> None:
    labels = torch.arange(10).repeat(10)
    images = make(guidance_scale=2.0).generate({"label": labels}, range(N))["image"]
    assert images.shape == (N, 1, 8, 8)
    assert -1.0 <= float(images.min()) < -0.9 < 0.9 < float(images.max()) <= 1.0
    assert agreement(images, labels) > 0.7
    # DDIM clips samples, and latents must not be: it comes to where another solver comes.
    ddim = make(guidance_scale=2.0, scheduler="ddim", num_inference_steps=40).generate({"label": labels}, range(N))[
        "image"
    ]
    assert _rms(ddim - images) < 0.2
    alone = make(guidance_scale=2.0).generate({"label": labels[7:8]}, [7])["image"]
    torch.testing.assert_close(alone, images[7:8], atol=1e-3, rtol=0)


def test_latents_are_made_after_a_map_of_their_own_size(vae: Path, digits: Snapshot, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "codec": str(vae),
        "conditions": {"edges": {"of": "image", "how": "edges"}},
        "fit": {"steps": 2, "batch_size": 8, "channels": [8, 8], "augment_p": 1.0},
        "num_inference_steps": 2,
    }
    DiffusionGenerator(**settings).fit(digits, tmp_path, lambda step, total: None)
    generator = DiffusionGenerator(**settings)
    generator.load(tmp_path)
    assert generator._given.specs["edges"].shape == (1, 4, 4)
    given = edges(digits.unit("image", torch.arange(6)), 4)
    images = generator.generate({"edges": given}, [7] * 6)["image"]
    assert images.shape == (6, 1, 8, 8)
    assert not torch.allclose(images, images[:1].expand_as(images), atol=1e-4)


def test_real_samples_are_varied_inverted_and_kept_in_part_through_the_codec(
    make: Any, digits: Snapshot, vae: Path
) -> None:
    start, label = digits.unit("image", torch.arange(N)), digits.labels[:N]
    condition = {"label": label, "start_label": label, "start": start}
    decoded = make(strength=0.0).generate(condition, range(N))["image"]
    codec = VaeCodec.load(vae)
    torch.testing.assert_close(decoded, codec.decode(codec.encode(start)).clamp(-1, 1), atol=1e-4, rtol=1e-4)
    distances = [
        _rms(make(strength=strength).generate(condition, range(N))["image"] - decoded) for strength in (0.0, 0.4, 0.8)
    ]
    assert distances == sorted(distances)
    inverted = make(source="edit", num_inference_steps=20).generate(condition, range(N))["image"]
    assert _rms(inverted - decoded) < 0.3 * distances[-1]
    mask = torch.ones(N, 1, 8, 8)
    mask[:, :, 3:7, 3:6] = 0.0  # not in step with the latents' grid
    kept = make(repaint=0.2).generate({**condition, "mask": mask}, range(N))["image"]
    assert torch.equal(kept[mask > 0], start[mask > 0])
    assert _rms((kept - start)[mask == 0]) > 0.2


def test_a_latent_is_kept_only_where_all_that_it_stands_for_is() -> None:
    kept = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    kept[0, 0, 3, 6] = False
    latents = whole(kept, (4, 4))
    assert (~latents).nonzero().tolist() == [[0, 0, 1, 3]]
    assert torch.equal(whole(torch.cat((torch.ones_like(kept), kept), 1), (4, 4)), latents)  # of two channels, one
    assert whole(torch.ones(2, 3, 12, dtype=torch.bool), (4,)).all()


class Doubling:
    """A codec that can be reckoned by hand: latents are twice the samples."""

    def encode(self, x: Tensor) -> Tensor:
        return x * 2

    def decode(self, z: Tensor) -> Tensor:
        return z / 2


def test_latents_are_not_clamped_but_samples_are() -> None:
    means = torch.tensor([[[1.8, -1.8, 2.6]]]).expand(2, 1, 3)
    x = sample(
        GaussianDenoiser("v_prediction", means), make_scheduler("ddim", "v_prediction", 10, clip=False), (1, 3),
        {"label": torch.zeros(2, dtype=torch.int64)}, [1, 2], Controls(10), codec=Doubling(),
    )  # fmt: skip
    torch.testing.assert_close(x, torch.tensor([[[0.9, -0.9, 1.0]]]).expand(2, 1, 3), atol=1e-2, rtol=0)


def test_another_autoencoder_is_another_fit(vae: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(vae, tmp_path / "copy")
    assert codec_hash(copy) == codec_hash(vae)  # where it lies does not count
    keys = [DiffusionGenerator(codec=str(folder)).fit_key() for folder in (vae, copy)]
    assert keys[0] == keys[1] != DiffusionGenerator().fit_key()
    weights = next(copy.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert DiffusionGenerator(codec=str(copy)).fit_key() != keys[0]


def test_another_decoder_of_the_same_latents_is_another_pool(vae: Path, tmp_path: Path) -> None:
    """Its encoder is the same, so the fitted weights are too; what is decoded of their latents is not."""
    copy = shutil.copytree(vae, tmp_path / "copy")
    key = DiffusionGenerator(codec=str(vae)).sample_key()
    assert DiffusionGenerator(codec=str(copy)).sample_key() == key != DiffusionGenerator().sample_key()
    file = next(copy.glob("*.safetensors"))
    tensors = load_file(file)
    changed = next(name for name in tensors if name.startswith("decoder."))
    save_file({**tensors, changed: tensors[changed] + 0.1}, file)
    x = torch.zeros(1, 1, 8, 8)
    assert torch.equal(VaeCodec.load(copy).encode(x), VaeCodec.load(vae).encode(x))
    assert DiffusionGenerator(codec=str(copy)).sample_key() != key


def test_loading_leaves_the_global_random_state_alone(vae: Path) -> None:
    before = torch.get_rng_state()
    VaeCodec.load(vae)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_without_an_autoencoder_is_refused_with_the_key(tmp_path: Path, make: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.codec to the folder that vae\.save_pretrained"):
        DiffusionGenerator(codec=str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ConfigurationError, match=r"generator\.codec=null"):
        VaeCodec.load(tmp_path)
    with pytest.raises(GeneratorError, match=r"was fitted with a codec.*generator\.codec"):
        DiffusionGenerator().load(make.folder)
