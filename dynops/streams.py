"""Random streams: one generator for each purpose of a block, so that no purpose shifts another.

The cells of a study share a block's streams: the same split, the same order of the images, the same augmentation and,
where shapes match, the same initial weights. Source: Bouthillier et al., Accounting for Variance, MLSys 2021.
"""

import hashlib

import torch


def stream_seed(seed: int, *purpose: str | int) -> int:
    """Derive a 63-bit seed from a block's seed and a purpose.

    >>> stream_seed(0, "order", 1) == stream_seed(0, "order", 1) != stream_seed(0, "order", 2)
    True
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, *purpose: str | int) -> torch.Generator:
    """Return the CPU generator of one purpose: the same numbers on every device and in every cell."""
    return torch.Generator().manual_seed(stream_seed(seed, *purpose))
