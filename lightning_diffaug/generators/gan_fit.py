"""The fit of a small class-conditional GAN on the real training data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.generators.augment import RandomAffine
from lightning_diffaug.generators.fit_data import ClassBalancedDraws, labels_of, read
from lightning_diffaug.generators.gan_networks import Discriminator, GanNetwork
from lightning_diffaug.generators.gan_settings import GanSettings
from lightning_diffaug.generators.protocol import LABEL
from lightning_diffaug.randomness import seeded

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

_BETAS = (0.0, 0.99)


def fit_gan(
    snapshot: Snapshot,
    names: Sequence[str],
    shape: tuple[int, int, int],
    classes: int,
    settings: GanSettings,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> GanNetwork:
    """Fits with the hinge loss (Lim & Ye 2017).

    The discriminator sees real and made images augmented alike, as data are few (Zhao et al. 2020). The generator's
    batches are pairs of one class, which are driven apart (Mao et al. 2019): else it soon makes one image of a class.

    The global random states are left as they were.

    Args:
        snapshot: The real training data.
        names: Fields that are made together, joined along their channels.
        shape: (C, H, W) of them joined.
        classes: Number of classes; 1 where there are no labels.
        settings: The recipe.
        seed: Of the first weights and of every draw.
        device: Where it is fitted.
        progress: Called as ``progress(step, total)`` after each step.

    Returns:
        The generator with its averaged weights, in eval mode.

    Raises:
        GeneratorError: The data are empty, or a loss is not finite any more.
    """
    if not len(snapshot):
        raise GeneratorError("there is no real training sample to fit the GAN on. Check real.root and real.shots.")
    rng = torch.Generator().manual_seed(seed)
    with seeded(int(torch.randint(2**32, (), generator=rng))):
        generator = GanNetwork(shape, classes, settings.latent, settings.width).to(device)
        critic = Discriminator(shape, classes, settings.width).to(device)
    average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))  # type: ignore[no-untyped-call]
    optimizers = [torch.optim.Adam(network.parameters(), settings.lr, _BETAS) for network in (generator, critic)]
    draws = ClassBalancedDraws(snapshot.labels, len(snapshot), settings.class_balance)
    affine = RandomAffine(settings.augment_p, settings.augment_degrees, settings.augment_pixels, settings.augment_scale)

    def drawn() -> tuple[Tensor, Tensor]:
        rows = draws(settings.batch_size, rng)
        x, condition = read(snapshot, names, labels_of(snapshot), rows)
        label = condition.get(LABEL, torch.zeros(len(rows), dtype=torch.int64))
        return x.to(device), label.to(device)

    def made(label: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.randn(len(label), settings.latent, generator=rng).to(device)
        return z, generator(z, label)

    for step in range(settings.steps):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = settings.lr * _decay(step / settings.steps)
        real, label = drawn()
        with torch.no_grad():
            fake = made(label)[1]
        scores = critic(affine(torch.cat((real, fake)), rng), label.repeat(2))
        of_real, of_fake = scores.chunk(2)
        _update(optimizers[1], F.relu(1.0 - of_real).mean() + F.relu(1.0 + of_fake).mean(), step)
        label = label[: -(-len(label) // 2)].repeat(2)  # pairs of one class
        z, fake = made(label)
        loss = -critic(affine(fake, rng), label).mean() + settings.diversity * _likeness(z, fake)
        _update(optimizers[0], loss, step)
        average.update_parameters(generator)
        progress(step + 1, settings.steps)
    kept = cast(GanNetwork, average.module)
    return kept.eval().requires_grad_(False)


def _decay(done: float) -> float:
    """Learning rate as a share of the highest: constant for one half, then a cosine to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * max(0.0, 2.0 * done - 1.0)))


def _likeness(z: Tensor, images: Tensor) -> Tensor:
    """How alike the first and the second half of images are for the distance of their latent numbers."""
    (first, second), (image, other) = z.chunk(2), images.chunk(2)
    return (first - second).abs().mean() / ((image - other).abs().mean() + 1e-5)


def _update(optimizer: torch.optim.Optimizer, loss: Tensor, step: int) -> None:
    if not math.isfinite(float(loss.detach())):
        raise GeneratorError(
            f"the GAN's loss is {float(loss.detach())} at step {step + 1}. Lower generator.fit.lr, and check that the "
            "data are finite."
        )
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
