"""Random crops and mirror images of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

#: Images with a shorter side stay as they are: a crop or a mirror image of a tiny picture is another picture.
SMALLEST_SIDE = 16


def augmented(images: Tensor, generator: torch.Generator, *, flip: bool) -> Tensor:
    """Return a random crop of each image after zero padding by 1/8 of the side, half of them mirrored if `flip`.

    The padding is the usual 4 pixels for 32 x 32 (He 2016, 1512.03385, section 4.2). Images are normalised, so zero
    is the mean colour.

    Args:
        images: ``(n, C, H, W)``; returned as they are where H or W is below 16.
        generator: The only source of randomness; on the CPU.
        flip: Whether to mirror left to right.

    """
    n, channels, height, width = images.shape
    if min(height, width) < SMALLEST_SIDE:
        return images
    pad_y, pad_x = height // 8, width // 8
    padded = F.pad(images, (pad_x, pad_x, pad_y, pad_y)).permute(0, 2, 3, 1)
    tops = torch.randint(0, 2 * pad_y + 1, (n, 1), generator=generator)
    lefts = torch.randint(0, 2 * pad_x + 1, (n, 1), generator=generator)
    rows, columns = tops + torch.arange(height), lefts + torch.arange(width)
    if flip:
        mirrored = torch.rand((n, 1), generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    picture = torch.arange(n)[:, None, None]
    crops = padded[picture, rows[:, :, None], columns[:, None, :]]
    assert crops.shape == (n, height, width, channels)
    return crops.permute(0, 3, 1, 2)
