"""What is wrong with a diffusion generator's settings and the data is said at the door, before anything is built."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from training_toys import RealModule

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators import DiffusionGenerator, DistilledGenerator, VaeCodec
from lightning_diffaug.generators.codec import latent_shape
from lightning_diffaug.spec import FieldSpec, SampleSpec

PLAIN = {"augment_p": 0.0}


def _spec(image: tuple[int, ...] = (1, 8, 8), labelled: bool = True, **more: tuple[int, ...]) -> SampleSpec:
    fields = [FieldSpec("image", "0", "tensor", "uint8", image, 0.0, 255.0)]
    fields += [FieldSpec(name, name, "tensor", "float32", shape, 0.0, 1.0) for name, shape in more.items()]
    label = [FieldSpec("label", "1", "int", "int64", (), 0.0, 0.0)] if labelled else []
    return SampleSpec((*fields, *label))


def _vae(folder: Path) -> str:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        AutoencoderKL(
            in_channels=1, out_channels=1, latent_channels=2, sample_size=8, block_out_channels=(4, 4, 4),
            down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, norm_num_groups=2,
            mid_block_add_attention=False,
        ).save_pretrained(folder)  # fmt: skip
    return str(folder)


@pytest.mark.parametrize(
    ("settings", "spec", "key"),
    [
        ({"negative_label": 3, "guidance_scale": 2.0}, _spec(), r"3 classes, 0 to 2.*generator\.negative_label"),
        ({"negative_label": 0, "guidance_scale": 2.0}, _spec(labelled=False), r"no labels.*generator\.negative_label"),
        ({"conditions": {"mask": "concat"}}, _spec(), r"'mask'.*generator\.conditions"),
        ({"conditions": {"label": "class"}}, _spec(labelled=False), r"'label'.*generator\.conditions"),
        ({"conditions": {"low": {"of": "pixels", "how": "edges"}}}, _spec(), r"'pixels'.*generator\.conditions"),
        ({"conditions": {"text": "concat"}}, _spec(text=(5,)), r"'text'.*generator\.conditions\.text"),
        ({"conditions": {"mask": "vector"}}, _spec(mask=(8, 8)), r"generator\.conditions"),
        ({"conditions": {"image": "concat"}}, _spec(), r"data\.fields"),
        ({}, _spec(depth=(1, 4, 4)), r"data\.fields.*generator\.conditions"),
        ({}, _spec((6,)), r"generator\.fit\.augment_p"),
        ({"fit": {**PLAIN, "denoiser": "unet"}}, _spec((6,)), r"generator\.fit\.denoiser"),
        ({"fit": {**PLAIN, "denoiser": "unet1d"}}, _spec(), r"generator\.fit\.denoiser"),
        ({"fit": {**PLAIN, "channels": [8, 8]}}, _spec((6,)), r"generator\.fit\.channels"),
        ({"fit": {**PLAIN, "channels": [40, 40]}}, _spec((2, 64)), r"generator\.fit\.channels"),
        ({"fit": {"denoiser": "unet_cross"}}, _spec(), r"generator\.fit\.denoiser=unet"),
        ({"fit": {"denoiser": "dit", "denoiser_args": {"width": 30}}}, _spec(), "width"),
        ({}, _spec((1, 300, 300)), r"real\.size"),
    ],
)
def test_data_that_the_settings_do_not_suit_are_refused_with_the_key(
    settings: dict[str, Any], spec: SampleSpec, key: str
) -> None:
    labelled = spec.get("label") is not None
    with pytest.raises(ConfigurationError, match=key):
        DiffusionGenerator(**settings).bind(spec, ("a", "b", "c") if labelled else ())


@pytest.mark.parametrize(
    ("settings", "spec"),
    [
        ({}, _spec()),
        ({}, _spec(labelled=False)),
        ({"negative_label": 2, "guidance_scale": 2.0}, _spec()),
        ({"fit": PLAIN}, _spec((6,))),
        ({"fit": PLAIN}, _spec((2, 64))),
        ({"fit": {**PLAIN, "denoiser": "dit"}}, _spec((50, 3))),
        ({"fit": {"channels": [8, 8]}}, _spec((1, 300, 300))),
        ({"conditions": {"mask": "concat", "text": "cross"}}, _spec(mask=(8, 8), text=(5,))),
        ({"conditions": {"low": {"of": "image", "how": "low_resolution"}}}, _spec()),
        ({"fit": {"denoiser": "own_denoiser.Mlp"}}, _spec()),
    ],
)
def test_what_suits_the_data_passes_and_changes_no_key(settings: dict[str, Any], spec: SampleSpec) -> None:
    labelled = spec.get("label") is not None
    for generator in (DiffusionGenerator(**settings), DistilledGenerator(**settings)):
        before = json.dumps([generator.fit_key(), generator.sample_key(), generator.config()])
        generator.bind(spec, ("a", "b", "c") if labelled else ())
        assert json.dumps([generator.fit_key(), generator.sample_key(), generator.config()]) == before


def test_a_codec_is_checked_by_its_config_and_the_denoiser_by_its_latents(tmp_path: Path) -> None:
    folder = _vae(tmp_path / "vae")
    for size in ((8, 8), (13, 22)):
        latents = VaeCodec.load(Path(folder)).encode(torch.zeros(1, 1, *size))
        assert latent_shape(folder, (1, *size)) == tuple(latents.shape[1:])
    # 512 pixels are too many for a UNet of pixels, and not for one of latents.
    DiffusionGenerator(codec=folder).bind(_spec((1, 512, 512)), ("a",))
    for shape in ((3, 8, 8), (1, 8)):
        with pytest.raises(ConfigurationError, match=r"generator\.codec"):
            DiffusionGenerator(codec=folder, fit=PLAIN).bind(_spec(shape), ("a",))


def test_binding_imports_no_diffusers_and_builds_no_network() -> None:
    code = (
        "import sys, torch\n"
        "from lightning_diffaug.generators import DiffusionGenerator\n"
        "from lightning_diffaug.spec import FieldSpec, SampleSpec\n"
        "field = FieldSpec('image', '0', 'tensor', 'uint8', (1, 8, 8), 0.0, 255.0)\n"
        "state = torch.get_rng_state()\n"
        "for fit in ({}, {'denoiser': 'dit'}):\n"
        "    DiffusionGenerator(fit=fit).bind(SampleSpec((field,)), ())\n"
        "print('diffusers' in sys.modules, torch.equal(state, torch.get_rng_state()))\n"
    )
    root = str(Path(__file__).parents[2])
    said = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=200)
    assert said.stdout.split() == ["False", "True"], said.stderr


def test_training_does_not_begin_with_a_class_that_the_data_do_not_have(tmp_path: Path) -> None:
    generator = DiffusionGenerator(negative_label=10, guidance_scale=2.0)
    data = DiffAugDataModule(
        RealModule(), generator, cache_dir=tmp_path / "cache", refill="local", window=16, slot_size=8
    )
    data.setup("fit")
    try:
        with pytest.raises(ConfigurationError, match=r"generator\.negative_label"):
            data.train_dataloader()
    finally:
        data.close()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
