"""A small fully convolutional network for class masks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class SmallFCN(nn.Module):
    """Images float32 (n, C, H, W) → logits (n, classes, H, W): four convolutions and torchvision's `FCNHead`.

    Args:
        channels: Of an image.
        classes: Of a mask, background included.
        width: Channels of the first layer; later ones have up to four times as many.
        stride: Of the second layer; logits are brought back to the full resolution.
    """

    def __init__(self, channels: int, classes: int, width: int, stride: int = 2) -> None:
        from torchvision.models.segmentation.fcn import FCNHead  # slow to import

        super().__init__()
        self.body = nn.Sequential(
            *_layer(channels, width), *_layer(width, 2 * width, stride), *_layer(2 * width, 4 * width),
            *_layer(4 * width, 4 * width, dilation=2),
        )  # fmt: skip
        self.head = FCNHead(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the resolution of the images."""
        logits: Tensor = self.head(self.body(x))
        return functional.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def _layer(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
