"""LPIPS between samples, with weights of the backbone that lie in a local file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError

_BATCH = 32
_LEAST_SIDE = 64  # below, images are resized to it: the backbones halve them five times
_PAIRS = 1000
_NETS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}

Distance = Callable[[Tensor, Tensor], Tensor]
"""Images (n, 3, H, W) in [-1, 1] and others → distances (n,)."""


def lpips_distance(setting: Any) -> Distance:
    """The distance of Zhang et al. (2018), by torchmetrics, whose package carries the weights of its linear layers.

    Args:
        setting: A .safetensors file with the state dict of torchvision's AlexNet as trained on ImageNet, or
            ``{net: alex | vgg | squeeze, weights: <file>}`` for that of another one.

    Raises:
        ConfigurationError: There is no such file, or it is of another network.
    """
    named = dict(setting) if isinstance(setting, Mapping) else {"net": "alex", "weights": setting}
    net, file = named.get("net", "alex"), Path(str(named.get("weights"))).expanduser()
    if net not in _NETS or set(named) - {"net", "weights"}:
        raise ConfigurationError(f"lpips={setting!r}: net is one of {', '.join(_NETS)}, beside weights. Correct lpips.")
    if file.suffix != ".safetensors" or not file.is_file():
        raise ConfigurationError(
            f"lpips={setting!r}: there is no .safetensors file {file}, and nothing is downloaded. Where there is a "
            f"network, save torchvision.models.{_NETS[net]}(weights='DEFAULT').state_dict() by "
            "safetensors.torch.save_file, and set lpips to that file."
        )
    from safetensors.torch import load_file
    from torchmetrics.functional.image.lpips import _LPIPS

    network = _LPIPS(pretrained=True, net=net, pnet_rand=True)
    given = {name.removeprefix("features."): value for name, value in load_file(file).items()}
    try:  # its slices keep the number that a layer has in torchvision's network
        mine = {name: given[name.split(".", _prefix(net))[-1]] for name in network.net.state_dict()}
        network.net.load_state_dict(mine)
    except (KeyError, RuntimeError) as error:
        raise ConfigurationError(
            f"lpips={setting!r}: {file} is not the state dict of torchvision's {_NETS[net]} ({error}). Set lpips to it."
        ) from error
    network.eval().requires_grad_(False)

    def distance(first: Tensor, second: Tensor) -> Tensor:
        network.resize = _LEAST_SIDE if min(first.shape[-2:]) < _LEAST_SIDE else None
        with torch.no_grad():
            return torch.as_tensor(network(first, second)).flatten()

    return distance


def _prefix(net: str) -> int:
    return 2 if net == "squeeze" else 1  # "slices.3.6.…" and "slice3.6.…"


def within_classes(values: Tensor, labels: Tensor | None, distance: Distance, seed: int) -> tuple[float, int]:
    """Mean distance of pairs of samples of a class, drawn at random, and the number of pairs.

    Args:
        values: Images (n, C, H, W) in [-1, 1] of one or three channels.
        labels: Class indices, int64 (n,); None: all are of one class.
        distance: Of `lpips_distance`.
        seed: Of the draw.

    Raises:
        ConfigurationError: They are no such images, or no class has two.
    """
    if values.ndim != 4 or values.shape[1] not in (1, 3):
        raise ConfigurationError(f"LPIPS is of images of one or three channels, not of {tuple(values.shape[1:])}.")
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    parts = [order] if labels is None else [order[labels[order] == c] for c in torch.unique(labels).tolist()]
    pairs = torch.cat([torch.stack((part[: len(part) // 2 * 2 : 2], part[1::2]), 1) for part in parts])
    pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))[:_PAIRS]]
    if not len(pairs):
        raise ConfigurationError("no class has two samples, so LPIPS within a class has no pair.")
    found = [
        distance(values[part[:, 0]].expand(-1, 3, -1, -1), values[part[:, 1]].expand(-1, 3, -1, -1))
        for part in torch.split(pairs, _BATCH)
    ]
    return float(torch.cat(found).double().mean()), len(pairs)
