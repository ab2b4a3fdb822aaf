"""Points of the space that nobody has published."""

from dynops.ops import Window
from dynops.parts.channels import Channels
from dynops.parts.dynamic import Dynamic
from dynops.parts.kernel import Static
from dynops.parts.mixture import Mixture
from dynops.parts.normalise import softmax
from dynops.parts.operator import Operator


def static_plus_dynamic(kernel_size: int = 7, reduction: int = 4, stride: int = 1) -> Operator:
    """Return a depthwise convolution plus one kernel from each pixel, which all channels share.

    Formula: K[c,k,p] = W[c,k] + (W1 relu(BN(W0 x[p])) + b1)[k]
    Parameters: C*K^2 + C^2/r + 2*C/r + C/r*K^2 + K^2
    Source: this project's.
    """
    return Operator(
        kernel=Static() + Dynamic(context="pixel", reduction=reduction, shared="g"),
        channels=Channels("g"),
        window=Window(kernel_size, stride=stride),
    )


def pixel_mixture(experts: int = 4, kernel_size: int = 7, reduction: int = 4, stride: int = 1) -> Operator:
    """Return a mixture of depthwise convolutions that each pixel weighs anew.

    Formula: K[c,k,p] = sum over e of softmax_e(W1 relu(BN(W0 x[p])) + b1)[e] W_e[c,k]
    Parameters: E*C*K^2 + C^2/r + 2*C/r + C/r*E + E
    Source: this project's.
    """
    router = Dynamic(context="pixel", reduction=reduction).then(softmax)
    return Operator(
        kernel=Mixture(experts=(Static(),) * experts, router=router),
        channels=Channels("g"),
        window=Window(kernel_size, stride=stride),
    )


def involution_with_coordinates(
    kernel_size: int = 7, group_channels: int = 16, reduction: int = 4, stride: int = 1
) -> Operator:
    """Return involution whose kernel knows where in the image it is, at any size.

    Formula: K[g,k,p] = (W1 relu(BN(W0 [x[p], p])) + b1)[g,k], p from -1 to 1
    Parameters: (C+2)*m + 2*m + m*K^2*G + K^2*G; m = (C+2)/r, rounded down.
    Source: this project's; the coordinates as in Liu et al., CoordConv, NeurIPS 2018.
    """
    return Operator(
        kernel=Dynamic(context=("pixel", "coordinates"), reduction=reduction, least=1),
        channels=Channels("(g s)", s=group_channels),
        window=Window(kernel_size, stride=stride),
    )
