"""Operators that mix a bank of kernels."""

from dynops.ops import Window
from dynops.parts.channels import Channels
from dynops.parts.dynamic import Dynamic, Hidden, Linear, Read
from dynops.parts.features import PooledTaps
from dynops.parts.kernel import Static
from dynops.parts.mixture import Mixture
from dynops.parts.normalise import Softmax, one_hot, sigmoid, softmax
from dynops.parts.operator import Operator


def condconv(experts: int = 8, kernel_size: int = 3, stride: int = 1, dilation: int = 1) -> Operator:
    """Return CondConv: for each image a sum of kernels, weighed by gates.

    Formula: W[o,i,k] = sum over e of sigmoid(R mean(x) + r)[e] W_e[o,i,k]
    Parameters: E*C^2*K^2 + C*E + E
    Source: Yang et al., CondConv, NeurIPS 2019, eq. 1 and 2.
    """
    kernel = Mixture(experts=(Static(),) * experts, router=Linear(context="global").then(sigmoid))
    window = Window(kernel_size, stride=stride, dilation=dilation)
    return Operator(kernel=kernel, channels=Channels("i -> o"), window=window)


def dynamic_conv(
    experts: int = 4, kernel_size: int = 3, stride: int = 1, reduction: int = 4, temperature: float = 30.0
) -> Operator:
    """Return dynamic convolution: for each image a mean of kernels and of biases, by a softmax that starts flat.

    Formula: a = softmax(R2 relu(R1 mean(x)) + r2) / t); W = sum over e of a[e] W_e, b = sum over e of a[e] b_e
    Parameters: E*C^2*K^2 + E*C + C*m + m*E + E; m = C/r hidden channels.
    Source: Chen et al., Dynamic Convolution, CVPR 2020, eq. 2 and 3.
    Deviates: the temperature t stays; the paper lowers it from 30 to 1 in the first epochs.
    """
    hidden = Hidden(context="global", reduction=reduction, least=1, norm=None)
    router = Read().then(Softmax(temperature=temperature))
    mixture = Mixture(experts=(Static(),) * experts, router=router)
    return Operator(
        context=Hidden(context=hidden, hidden=experts, norm=None, bias=True, activation="identity"),
        kernel=mixture,
        channels=Channels("i -> o"),
        window=Window(kernel_size, stride=stride),
        bias=mixture,
    )


def odconv(experts: int = 4, kernel_size: int = 3, stride: int = 1, reduction: int = 16, least: int = 16) -> Operator:
    """Return ODConv: gates for outputs, inputs, taps and kernels, all from one hidden context of the image.

    Formula: h = relu(BN(W0 mean(x))); W[o,i,k] = f[o] c[i] s[k] sum over e of a[e] W_e[o,i,k]; f, c, s sigmoids and a
        a softmax of linear maps of h
    Parameters: E*C^2*K^2 + C*a + 2*a + (a+1)*(2*C + K^2 + E); a = max(C/16, 16).
    Source: Li et al., Omni-Dimensional Dynamic Convolution, ICLR 2022, eq. 2.
    """
    mixture = Mixture(experts=(Static(),) * experts, router=Linear(context="operator").then(softmax))
    inputs, outputs, taps = (
        Linear(context="operator", shared=shared).then(sigmoid) for shared in ("g o k", "g i k", "g o i")
    )
    return Operator(
        context=Hidden(context="global", reduction=reduction, least=least),
        kernel=mixture * inputs * outputs * taps,
        channels=Channels("i -> o"),
        window=Window(kernel_size, stride=stride),
    )


def drconv(regions: int = 8, kernel_size: int = 3) -> Operator:
    """Return DRConv: each pixel chooses one of a few kernels, which are made from the image.

    Formula: W_e[:,:,k] = V_e sigmoid(U_e pool(x)[k] + u_e) + v_e; K[o,i,k,p] = W_e[o,i,k], e = argmax(G * x)[p]
    Parameters: C*R^2 + R^2 + R^2*C^2 + R*C^2 + (C*K^2+1)*R; R regions.
    Source: Chen et al., Dynamic Region-Aware Convolution, CVPR 2021, eq. 2 to 5.
    Deviates: gradients of the choice pass as through a softmax of G * x, by this project's `one_hot`.
    """
    expert = Dynamic(context=PooledTaps(), hidden=regions, norm=None, bias=True, activation="sigmoid")
    router = Linear(context="pixel", reach="window").then(one_hot)
    return Operator(
        kernel=Mixture(experts=(expert,) * regions, router=router),
        channels=Channels("i -> o"),
        window=Window(kernel_size),
    )
