"""Weights of the timesteps in the loss of a fit."""

from __future__ import annotations

from torch import Tensor


def min_snr_weights(prediction_type: str, snr: Tensor, gamma: float) -> Tensor:
    """Min-SNR-γ weights of the squared error (Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting").

    The error of the predicted x_0 has the weight min(SNR, γ) (section 3.4); what another prediction's error means for
    x_0 gives min(SNR, γ) / SNR for noise and min(SNR, γ) / (SNR + 1) for v. For flow, x_0 = x_t − u v with
    SNR = (1 − u)² / u² gives min(SNR, γ) · u², where 1 / u = 1 + √SNR.

    Args:
        prediction_type: One of `schedulers.PREDICTION_TYPES`.
        snr: Signal-to-noise ratio of each sample's timestep; may be infinite for flow.
        gamma: The γ.
    """
    least = snr.clamp(max=gamma)
    if prediction_type == "sample":
        return least
    if prediction_type == "epsilon":
        return least / snr
    if prediction_type == "v_prediction":
        return least / (snr + 1.0)
    return least / (1.0 + snr.sqrt()) ** 2
