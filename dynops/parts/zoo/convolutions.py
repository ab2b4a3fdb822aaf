"""Convolutions: the kernel is a table."""

from dynops.ops import Window
from dynops.parts.channels import Channels
from dynops.parts.dynamic import Linear
from dynops.parts.kernel import Static
from dynops.parts.mixture import Mixture
from dynops.parts.normalise import sigmoid, softmax
from dynops.parts.operator import Offsets, Operator


def conv2d(kernel_size: int = 3, stride: int = 1, dilation: int = 1, groups: int = 1, bias: bool = False) -> Operator:
    """Return the convolution: dense static kernels.

    Formula: y[o,p] = sum over i, k of W[o,i,k] x[i,window(p,k)]
    Parameters: C^2/n*K^2; n groups, and C more with a bias.
    Source: LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 1998.
    """
    channels = Channels("i -> o") if groups == 1 else Channels("(g i) -> (g o)", g=groups)
    return Operator(kernel=Static(), channels=channels, window=_window(kernel_size, stride, dilation), bias=bias)


def conv_transpose2d(kernel_size: int = 3, stride: int = 2) -> Operator:
    """Return the transposed convolution: each pixel writes a window, and the grid grows by the stride.

    Formula: y[o,q] = sum over i and all p, k with window(p,k) = q of W[o,k,i] x[i,p]
    Parameters: C^2*K^2
    Source: Zeiler et al., Deconvolutional Networks, CVPR 2010.
    """
    padding = "centre" if kernel_size % 2 else "same"
    scatter = Window(kernel_size, stride=stride, padding=padding)
    return Operator(kernel=Static(), channels=Channels("i -> o"), window=Window(1), scatter=scatter)


def depthwise(kernel_size: int = 3, stride: int = 1, dilation: int = 1, bias: bool = False, dims: int = 2) -> Operator:
    """Return the depthwise convolution: one static kernel for each channel.

    Formula: y[c,p] = sum over k of W[c,k] x[c,window(p,k)]
    Parameters: C*K^2; C more with a bias.
    Source: Sifre, Rigid-Motion Scattering for Image Classification, PhD thesis, 2014, section 6.2.
    """
    window = Window(kernel_size, stride=stride, dilation=dilation, dims=dims)
    return Operator(kernel=Static(), channels=Channels("g"), window=window, bias=bias)


def shared_depthwise(kernel_size: int = 7, group_channels: int = 16, stride: int = 1, dims: int = 2) -> Operator:
    """Return involution's sharing without its generation: static kernels, each shared by a group of channels.

    Formula: y[(g s),p] = sum over k of W[g,k] x[(g s),window(p,k)]
    Parameters: G*K^2; G = C/s groups.
    Source: this project's, the control that tells sharing from generation.
    """
    window = Window(kernel_size, stride=stride, dims=dims)
    return Operator(kernel=Static(), channels=Channels("(g s)", s=group_channels), window=window)


def locally_connected(kernel_size: int = 3, stride: int = 1) -> Operator:
    """Return the locally connected layer: a convolution with weights of its own at each position.

    Formula: y[o,p] = sum over i, k of W[o,i,k,p] x[i,window(p,k)]
    Parameters: N*C^2*K^2; N output pixels.
    Source: Gregor and LeCun, Emergence of complex-like cells with local receptive fields, 2010.
    """
    return Operator(
        kernel=Static(positions=True), channels=Channels("i -> o"), window=Window(kernel_size, stride=stride)
    )


def low_rank_locally_connected(experts: int = 4, kernel_size: int = 3, stride: int = 1) -> Operator:
    """Return the locally connected layer of low rank: at each position another mixture of the same kernels.

    Formula: W[o,i,k,p] = sum over e of softmax_e(a[e,p]) W_e[o,i,k]
    Parameters: E*C^2*K^2 + E*N; N output pixels.
    Source: Elsayed et al., Revisiting Spatial Invariance with Low-Rank Local Connectivity, ICML 2020, eq. 2 and 3.
    Deviates: the mixing weights are a table of positions, not rows plus columns, and a position has no bias.
    """
    kernel = Mixture(experts=(Static(),) * experts, router=Static(positions=True).then(softmax))
    return Operator(kernel=kernel, channels=Channels("i -> o"), window=Window(kernel_size, stride=stride))


def deformable_conv(kernel_size: int = 3, stride: int = 1, dilation: int = 1, groups: int = 1) -> Operator:
    """Return the deformable convolution: each tap looks beside its place, by an offset made from the window.

    Formula: y[o,p] = sum over i, k of W[o,i,k] x[i,window(p,k) + offset[n(i),k,p]], linear between pixels
    Parameters: C^2*K^2 + 2*n*K^2*(C*K^2+1); n groups of offsets.
    Source: Dai et al., Deformable Convolutional Networks, ICCV 2017, eq. 2 to 4.
    """
    offsets = Offsets(kernel=Linear(context="pixel", reach="window", start=0.0), groups=groups)
    window = _window(kernel_size, stride, dilation)
    return Operator(kernel=Static(), channels=Channels("i -> o"), window=window, offsets=offsets)


def modulated_deformable_conv(kernel_size: int = 3, stride: int = 1, dilation: int = 1) -> Operator:
    """Return the deformable convolution of the second version: each tap is weighed as well.

    Formula: y[o,p] = sum over i, k of sigmoid(m[k,p]) W[o,i,k] x[i,window(p,k) + offset[k,p]]
    Parameters: C^2*K^2 + 3*K^2*(C*K^2+1)
    Source: Zhu et al., Deformable ConvNets v2, CVPR 2019, eq. 1.
    """
    mask = Linear(context="pixel", reach="window", start=0.0, shared="g o i").then(sigmoid)
    return Operator(
        kernel=Static() * mask,
        channels=Channels("i -> o"),
        window=_window(kernel_size, stride, dilation),
        offsets=Offsets(kernel=Linear(context="pixel", reach="window", start=0.0)),
    )


def _window(size: int, stride: int, dilation: int) -> Window:
    return Window(size, stride=stride, dilation=dilation)
