"""Random changes of training images that keep their class: shifted windows and mirrored columns."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from dynops.axes import bind
from dynops.specs import Spec, at_least, one_of, spec


@spec
class Augmentation(Spec):
    """Which random changes the training images go through, one draw per image and epoch."""

    crop: int = 0
    """Pixels of zeros put around an image before a window of its old size is cut out at a random place."""
    flip: bool = False
    """Whether half of the images are mirrored left to right."""

    def __post_init__(self) -> None:
        at_least("crop", self.crop, 0)
        one_of("flip", self.flip, (False, True))


def augment(inputs: Tensor, augmentation: Augmentation, generator: Generator) -> Tensor:
    """Change each image of a batch at random.

    With the padded image x, y[b,c,i,j] = x[b,c,row_b+i,column_b+j], and j counted from the right where b is mirrored.
    The same numbers are drawn whatever the augmentation, so that `flip` leaves the windows as they are.

    Args:
        inputs: images before normalisation, `b c h w`, any dtype and device; zero is what the padding holds.
        augmentation: which changes.
        generator: random numbers, on the CPU, so that all devices see the same images.
    Returns:
        Images, `b c h w`, of the dtype and device of `inputs`.
    Raises:
        ShapeError: `inputs` has other than four axes.
    """
    sizes = bind("inputs", inputs, "b c h w")
    batch, height, width = sizes["b"], sizes["h"], sizes["w"]
    if augmentation == Augmentation():
        return inputs
    corners = torch.randint(2 * augmentation.crop + 1, (2, batch, 1), generator=generator)
    mirrored = (torch.rand(batch, 1, generator=generator) < 0.5) & augmentation.flip
    rows = corners[0] + torch.arange(height)  # b h
    across = torch.arange(width)
    columns = corners[1] + torch.where(mirrored, across.flip(0), across)  # b w
    padded_width = width + 2 * augmentation.crop
    pixels = (rows[:, :, None] * padded_width + columns[:, None, :]).flatten(1).to(inputs.device)  # b (h w)
    padded = F.pad(inputs, (augmentation.crop,) * 4).flatten(2)
    return padded.gather(2, pixels.unsqueeze(1).expand(-1, sizes["c"], -1)).view(inputs.shape)
