"""What others would run for the same scores: timm's loader and loop, the naive dense loop, crops cut by PIL."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from .made import COLOUR, MEAN, SCALE, STD


class Decoded(torch.utils.data.Dataset):
    """Images in memory, or the paths of JPEG files, in the form that timm's loader takes."""

    def __init__(self, images: Sequence[Any]) -> None:
        self.images, self.transform = images, None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Any:
        image = self.images[i]
        whole = Image.fromarray(image) if isinstance(image, np.ndarray) else Image.open(image).convert("RGB")
        return self.transform(whole), 0


def timm_net(net: nn.Module, name: str, best: bool) -> nn.Module:
    """timm's own net with the same weights; `best` is --model-dtype bfloat16 --channels-last --torchcompile."""
    import timm

    other = timm.create_model(name).eval()
    with torch.no_grad():
        mine, its = ([*n.parameters(), *n.buffers()] for n in (net, other))
        for source, target in zip(mine, its, strict=True):
            target.copy_(source.view_as(target))
    if best:
        other = torch.compile(other.to(torch.bfloat16, memory_format=torch.channels_last))
    return other


def timm_loop(net: nn.Module, images: Sequence[Any], best: bool) -> np.ndarray:
    """The scores of `timm.data.create_loader` and the loop of timm's validate.py, at its default arguments.

    But for: device cpu; no worker processes, whose start would count against so few images. The batch of 256 holds
    all images. The resize is to 256, bilinear, the crop 224.
    """
    from timm.data import create_loader
    from timm.utils import accuracy

    dtype = torch.bfloat16 if best else torch.float32
    loader = create_loader(
        Decoded(images), (3, 224, 224), 256, interpolation="bilinear", mean=MEAN, std=STD, crop_pct=0.875,
        num_workers=0, img_dtype=dtype, device=torch.device("cpu"),
    )  # fmt: skip
    found = []
    with torch.inference_mode():
        for batch, target in loader:
            x = batch.contiguous(memory_format=torch.channels_last) if best else batch
            output = net(x)
            nn.functional.cross_entropy(output, target)
            accuracy(output, target, topk=(1, 5))
            found.append(output.float().softmax(1))
    return torch.cat(found).numpy()


def pil_resized(image: np.ndarray, side: int) -> Image.Image:
    """The short side brought to `side`, the long one rounded down, bilinear, as torchvision's `Resize`."""
    height, width = image.shape[:2]
    short = min(height, width)
    return Image.fromarray(image).resize((side * width // short, side * height // short), Image.Resampling.BILINEAR)


def one_by_one(net: nn.Module, image: np.ndarray, side: int) -> np.ndarray:
    """50 crops of one image in float32, rescaled by PIL without rounding, each cut and forwarded by itself."""
    planes = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(3)]
    size = pil_resized(image, side).size
    whole = np.stack([np.asarray(plane.resize(size, Image.Resampling.BILINEAR)) for plane in planes], axis=2)
    total = torch.zeros(())
    with torch.inference_mode():
        for y in _five(size[1]):
            for x in _five(size[0]):
                crop = (torch.tensor(whole[y : y + 224, x : x + 224]) - torch.tensor(COLOUR)) * torch.tensor(SCALE)
                for view in (crop, crop.flip(1)):
                    total = total + net(view.permute(2, 0, 1)[None].contiguous()).softmax(1)
    return (total / 50).numpy()


def tensor(images: Sequence[Image.Image]) -> torch.Tensor:
    x = torch.from_numpy(np.stack([np.asarray(i) for i in images])).float()
    return ((x - torch.tensor(COLOUR)) * torch.tensor(SCALE)).permute(0, 3, 1, 2).contiguous()


def dense_loop(net: nn.Module, images: Sequence[np.ndarray], sides: Sequence[int]) -> np.ndarray:
    """Dense evaluation as it is mostly written: fc6 a 7x7 convolution, one image and one scale at a time."""
    fc6, fc7, fc8 = (m for m in net.classifier if isinstance(m, nn.Linear))  # type: ignore[union-attr]
    found = []
    with torch.inference_mode():
        for image in images:
            total = torch.zeros(())
            for side in sides:
                x = tensor([pil_resized(image, side)])
                for view in (x, x.flip(3)):
                    y = F.relu(F.conv2d(net.features(view), fc6.weight.view(4096, 512, 7, 7), fc6.bias))  # type: ignore[operator]
                    y = F.relu(F.conv2d(y, fc7.weight[:, :, None, None], fc7.bias))
                    y = F.conv2d(y, fc8.weight[:, :, None, None], fc8.bias)
                    total = total + y.mean((2, 3)).softmax(1)
            found.append(total / (2 * len(sides)))
    return torch.cat(found).numpy()


def crops_loop(net: nn.Module, images: Sequence[np.ndarray], sides: Sequence[int], best: bool) -> np.ndarray:
    """150 crops: at each scale 5 x 5 boxes cut by PIL, and mirrored, through timm's net.

    50 to a batch, the fastest of 10, 25 and 50; float32, or bf16 and channels_last if `best`.
    """
    found = []
    with torch.inference_mode():
        for image in images:
            total = torch.zeros(())
            for side in sides:
                whole = pil_resized(image, side)
                boxes = [(x, y, x + 224, y + 224) for y in _five(whole.height) for x in _five(whole.width)]
                x = tensor([whole.crop(box) for box in boxes])
                x = torch.cat([x, x.flip(3)])
                if best:
                    x = x.bfloat16().contiguous(memory_format=torch.channels_last)
                total = total + net(x).float().softmax(1).sum(0, keepdim=True)
            found.append(total / (50 * len(sides)))
    return torch.cat(found).numpy()


def _five(size: int) -> list[int]:
    """Five offsets from edge to edge, the far ones mirroring the near ones."""
    near = [round(i * (size - 224) / 4) for i in range(3)]
    return [*near, *(size - 224 - offset for offset in reversed(near[:2]))]


def prepared(net: nn.Module, best: bool) -> nn.Module:
    """A copy of one of our nets with the weights cast to bf16 that the engine would cast at the start of each pass.

    A pass over a data set does that once, and these are over few images. Compiled when first called if `best`.
    """
    net = copy.deepcopy(net)
    for layer in net.modules():
        if type(layer) in (nn.Conv2d, nn.Linear):
            layer.to(torch.bfloat16)
    if best:
        net.compile()
    return net
