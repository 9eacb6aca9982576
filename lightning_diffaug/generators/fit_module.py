"""The fit of a denoiser as a LightningModule: loss, conditions, augmentation, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.generators.augment import AUGMENT, PARAMETERS, RandomAffine, are_points
from lightning_diffaug.generators.denoisers.conditioning import Conditions, of_kind
from lightning_diffaug.generators.fit_average import AveragedWeights
from lightning_diffaug.generators.fit_loss import min_snr_weights
from lightning_diffaug.generators.fit_settings import FitSettings, learning_rate
from lightning_diffaug.generators.protocol import LABEL
from lightning_diffaug.generators.schedulers import ForwardProcess

HELD_OUT_LOSS = "fit/held_out_loss"
"""Name of the logged loss of validation batches."""

_HELD_OUT_SEED = 0x6E6F697365


class DenoiserFit(LightningModule):
    """Fits a denoiser; any `Trainer` runs it, as `fit_denoiser` does.

    ``Trainer(max_steps=settings.steps).fit(DenoiserFit(network), loader)`` leaves the averaged weights in `network`.
    The averaging, and early stopping where `FitSettings.patience` is set, come as callbacks of the module; gradients
    are clipped by the module. Validation batches are what the fit is judged by.

    A batch is x_0, float32 (n, *shape) in [-1, 1]; or a pair of x_0 and its condition: labels, int64 (n,), or name → n
    values.

    Args:
        denoiser: Called as ``denoiser(x_t, t, condition)``, with t in [0, 1000), (n,); predicts what
            `FitSettings.prediction_type` says. With a method ``null(condition)``, which gives the same names with
            nothing asked for (or None), it is fitted without its condition now and then, for guidance. With an
            attribute ``conditions`` (name → `ConditionSpec`), maps among them are augmented with their samples.
        settings: The recipe.
        rng: CPU generator of every draw; it goes into a checkpoint. None: one with seed 0.
    """

    def __init__(
        self, denoiser: nn.Module, settings: FitSettings | None = None, rng: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.settings = FitSettings() if settings is None else settings
        self.losses: list[float] = []
        """Loss of each step."""
        s = self.settings
        self._rng = torch.Generator().manual_seed(0) if rng is None else rng
        self._process = ForwardProcess(s.prediction_type)
        self._augment = RandomAffine(s.augment_p, s.augment_degrees, s.augment_pixels, s.augment_scale)
        self._held_out = (0.0, 0)

    @property
    def held_out_loss(self) -> float:
        """Mean loss of the validation batches since the last check began; NaN before any."""
        total, n = self._held_out
        return total / n if n else math.nan

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch.

        Raises:
            GeneratorError: It is not finite.
        """
        x_0, condition = _parts(batch)
        x_0, condition, told = self._augmented(x_0, condition)
        condition = self._dropped(condition, told, len(x_0))
        t = self._process.timesteps(len(x_0), self._rng)
        noise = torch.randn(x_0.shape, generator=self._rng)
        loss = self.loss(x_0, noise, t, condition)
        self.losses.append(float(loss.detach()))
        if not math.isfinite(self.losses[-1]):
            s = self.settings
            raise GeneratorError(
                f"the loss of the generator's fit is {self.losses[-1]} at step {self.global_step + 1} of {s.steps}, "
                f"so its weights are useless. Lower generator.fit.lr (now {s.lr}) or generator.fit.grad_clip (now "
                f"{s.grad_clip}), and check that the data are finite."
            )
        return loss

    def loss(self, x_0: Tensor, noise: Tensor, t: Tensor, condition: Mapping[str, Any]) -> Tensor:
        """Mean squared error of the prediction for noised samples, timesteps weighted as the settings say.

        Args:
            x_0: (n, *shape) clean samples.
            noise: (n, *shape) standard normal.
            t: (n,) timesteps.
            condition: n entries for each name.
        """
        noise, t = noise.to(x_0.device), t.to(x_0.device)
        x_t, target = self._process.noised(x_0, noise, t)
        prediction = self.denoiser(x_t, t, condition).float()
        gamma = self.settings.min_snr
        if gamma is None:
            return functional.mse_loss(prediction, target)
        weights = min_snr_weights(self.settings.prediction_type, self._process.snr(t), gamma)
        errors = functional.mse_loss(prediction, target, reduction="none").flatten(1).mean(1)
        return (weights * errors).mean()

    def on_validation_epoch_start(self) -> None:
        """A check begins."""
        self._held_out = (0.0, 0)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Adds a batch to `held_out_loss`: the same noise and timesteps each time, conditions kept, no augmentation."""
        x_0, condition = _parts(batch)
        if self._told:
            condition = {**condition, AUGMENT: torch.zeros(len(x_0), PARAMETERS, device=x_0.device)}
        rng = torch.Generator().manual_seed(_HELD_OUT_SEED + batch_idx)
        t = self._process.timesteps(len(x_0), rng)
        loss = self.loss(x_0, torch.randn(x_0.shape, generator=rng), t, condition)
        total, n = self._held_out
        self._held_out = (total + float(loss) * len(x_0), n + len(x_0))
        self.log(HELD_OUT_LOSS, loss, batch_size=len(x_0))

    def configure_optimizers(self) -> Any:
        """AdamW, linear warm-up, cosine."""
        s = self.settings
        optimizer = torch.optim.AdamW(self.denoiser.parameters(), lr=s.lr, weight_decay=s.weight_decay, fused=True)
        schedule = LambdaLR(optimizer, lambda step: learning_rate(step, s))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the norm of the gradient as the settings say; a value given to the Trainer has no effect.

        Not by `clip_gradients`: with mixed precision, Lightning refuses that for a fused optimizer, though bfloat16
        needs no scaling.
        """
        nn.utils.clip_grad_norm_(self.denoiser.parameters(), self.settings.grad_clip)

    def configure_callbacks(self) -> list[Callback]:
        """The averaging of the weights, and the early stop."""
        callbacks: list[Callback] = [AveragedWeights(self.settings.ema)]
        if self.settings.patience is not None:
            stop = EarlyStopping(HELD_OUT_LOSS, patience=self.settings.patience, check_on_train_epoch_end=False)
            callbacks.append(stop)
        return callbacks

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the state of the draws and the losses."""
        checkpoint["fit"] = {"rng": self._rng.get_state(), "losses": torch.tensor(self.losses, dtype=torch.float64)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with them."""
        self._rng.set_state(checkpoint["fit"]["rng"].cpu())
        self.losses = checkpoint["fit"]["losses"].tolist()

    @property
    def _told(self) -> bool:
        return self.settings.augment_told

    def _augmented(self, x_0: Tensor, condition: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any], dict[str, Any]]:
        """Augmented samples, their condition, and what the denoiser is told of the augmentation.

        Maps among the conditions (masks, edges, depth) are moved with their samples, and points with points: else they
        would show something else.
        """
        augment, n = self._augment, len(x_0)
        if augment.p == 0.0 or not n:
            return x_0, condition, {AUGMENT: torch.zeros(n, PARAMETERS, device=x_0.device)} if self._told else {}
        active, how = augment.drawn(n, self._rng)
        told = {AUGMENT: augment.described(active, how).to(x_0.device)} if self._told else {}
        known: Conditions = getattr(self.denoiser, "conditions", {})
        if are_points(tuple(x_0.shape[1:])):
            scans = [name for name, spec in of_kind(known, "cross").items() if spec.shape[1:] == x_0.shape[2:]]
            turned = {name: augment.moved_points(condition[name], active, how) for name in scans if name in condition}
            return augment.moved_points(x_0, active, how), {**condition, **turned}, told
        maps = [name for name, spec in of_kind(known, "concat", "cross").items() if len(spec.shape) == 3]
        moved = augment.moved(x_0, active, how)
        size = (x_0.shape[2], x_0.shape[3])
        along = {name: augment.moved(condition[name], active, how, size) for name in maps if name in condition}
        return moved, {**condition, **along}, told

    def _dropped(self, condition: Mapping[str, Any], told: Mapping[str, Any], n: int) -> dict[str, Any]:
        """The condition with nothing asked for in some rows; what the augmentation was is always told."""
        make_null = getattr(self.denoiser, "null", None)
        null = make_null({**condition, **told}) if condition and make_null is not None else None
        if null is None:
            return {**condition, **told}
        dropped = torch.rand(n, generator=self._rng) < self.settings.condition_dropout
        some = {name: _where(dropped, null[name], value) for name, value in condition.items() if name in null}
        return {**condition, **some, **told}


def _parts(batch: Any) -> tuple[Tensor, Mapping[str, Any]]:
    if isinstance(batch, Tensor):
        return batch, {}
    x_0, condition = batch
    return x_0, condition if isinstance(condition, Mapping) else {LABEL: condition}


def _where(dropped: Tensor, null: Any, value: Any) -> Any:
    if not isinstance(value, Tensor):
        return [nothing if drop else kept for drop, nothing, kept in zip(dropped.tolist(), null, value, strict=True)]
    return torch.where(dropped.to(value.device).view(-1, *[1] * (value.ndim - 1)), null, value)
