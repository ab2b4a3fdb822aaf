"""Mixers of tokens without parameters or without locality, and gates: the limit of one tap."""

from math import isqrt

from dynops.ops import Global, Size, Window
from dynops.parts.channels import Channels
from dynops.parts.combine import Pointwise, Series
from dynops.parts.dynamic import Dynamic, Linear
from dynops.parts.features import ChannelStatistics, GlobalStatistics
from dynops.parts.kernel import Static
from dynops.parts.normalise import sigmoid, softmax
from dynops.parts.operator import Operator
from dynops.parts.places import Delta


def token_mixing() -> Operator:
    """Return one linear layer over all pixels, the same for each channel.

    Formula: y[c,p] = sum over m of W[p,m] x[c,m] + b[p]
    Parameters: N^2 + N; N pixels.
    Source: Touvron et al., ResMLP, 2021, eq. 2.
    """
    return Operator(kernel=Static(positions=True), channels=Channels("s"), window=Global(), bias=Static(positions=True))


def pooling(kernel_size: int = 3) -> Operator:
    """Return PoolFormer's mixer: the mean of the window's pixels that exist, less the pixel itself.

    Formula: y[c,p] = mean over k of x[c,window(p,k)] - x[c,p]
    Parameters: 0
    Source: Yu et al., MetaFormer Is Actually What You Need for Vision, CVPR 2022, eq. 4.
    """
    mean = Static(start=0.0, learned=False, shared="g o i k").then(softmax)
    return Operator(kernel=mean + Delta(weight=-1.0), channels=Channels("s"), window=Window(kernel_size, border="mask"))


def shift(groups: int = 12) -> Operator:
    """Return ShiftViT's mixer: four groups of channels move by a pixel, one in each direction, the others stay.

    Formula: y[(g s),p] = x[(g s),p + offset[g]]
    Parameters: 0
    Source: Wang et al., When Shift Operation Meets Vision Transformer, AAAI 2022, eq. 3.
    """
    moves = ((0, 1), (0, -1), (1, 0), (-1, 0))
    offsets = moves + ((0, 0),) * (groups - len(moves))
    return Operator(kernel=Delta(offsets=offsets), channels=Channels("(g s)", g=groups), window=Window(3))


def squeeze_excitation(reduction: int = 16) -> Operator:
    """Return the squeeze-and-excitation gate: a weight for each image and channel.

    Formula: y[c,p] = sigmoid(W1 relu(W0 mean(x) + b0) + b1)[c] x[c,p]
    Parameters: 2*C^2/r + C/r + C
    Source: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, eq. 2 to 4.
    """
    kernel = Dynamic(context="global", reduction=reduction, norm=None, bias=True).then(sigmoid)
    return Operator(kernel=kernel, channels=Channels("g"), window=Window(1))


def channel_gate(reduction: int = 16) -> Operator:
    """Return CBAM's gate of channels: from an image's mean and maximum.

    Formula: y[c,p] = sigmoid(W1 (relu(W0 mean(x)) + relu(W0 max(x))))[c] x[c,p]
    Parameters: 2*C^2/r
    Source: Woo et al., CBAM, ECCV 2018, eq. 2.
    """
    kernel = Linear(context=GlobalStatistics(reduction=reduction), bias=False).then(sigmoid)
    return Operator(kernel=kernel, channels=Channels("g"), window=Window(1))


def spatial_gate(kernel_size: int = 7) -> Operator:
    """Return CBAM's gate of pixels: from mean and maximum of the channels around each.

    Formula: y[c,p] = sigmoid(W * [mean_c(x); max_c(x)])[p] x[c,p], W of K x K
    Parameters: 2*K^2
    Source: Woo et al., CBAM, ECCV 2018, eq. 3.
    """
    kernel = Linear(context=ChannelStatistics(), reach=kernel_size, bias=False).then(sigmoid)
    return Operator(kernel=kernel, channels=Channels("s"), window=Window(1))


def cbam(reduction: int = 16, kernel_size: int = 7) -> Series:
    """Return CBAM: the gate of channels, then the gate of pixels.

    Formula: y = spatial_gate(channel_gate(x))
    Parameters: 2*C^2/r + 2*K^2
    Source: Woo et al., CBAM, ECCV 2018, eq. 1.
    """
    return Series(layers=(channel_gate(reduction), spatial_gate(kernel_size)))


def mlp_mixing(grid: Size = (14, 14), hidden: int = 256) -> Series:
    """Return MLP-Mixer's mixing of tokens: pixels to hidden tokens and back, the same for each channel.

    Formula: y[c] = W2 gelu(W1 x[c] + b1) + b2
    Parameters: 2*N*D + D + N; N pixels of the grid, D hidden tokens.
    Source: Tolstikhin et al., MLP-Mixer, NeurIPS 2021, eq. 1.
    Deviates: the norm before it and the shortcut around it are the network's.
    """

    def tokens(onto: Size) -> Operator:
        table = Static(positions=True)
        return Operator(kernel=table, channels=Channels("s"), window=Global(grid=onto, dims=len(grid)), bias=table)

    # hidden tokens have no place; a layout that is nearly square is the one to look at
    rows = next(side for side in range(isqrt(hidden), 0, -1) if hidden % side == 0)
    layout = (1, rows, hidden // rows)[-len(grid) :] if len(grid) > 1 else (hidden,)
    return Series(layers=(tokens(layout), Pointwise(activation="gelu", dims=len(grid)), tokens(grid)))
