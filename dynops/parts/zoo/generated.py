"""Operators whose kernels are generated from the input."""

from dynops.ops import Window
from dynops.parts.channels import Channels
from dynops.parts.dynamic import Dynamic, Hidden, Linear
from dynops.parts.gaussian import Gaussian
from dynops.parts.kernel import Static
from dynops.parts.norm import BatchNorm
from dynops.parts.normalise import filter_norm, softmax
from dynops.parts.operator import Operator


def involution(
    kernel_size: int = 7, group_channels: int = 16, reduction: int = 4, stride: int = 1, dims: int = 2
) -> Operator:
    """Return involution: a kernel from each pixel, shared by a group of channels.

    Formula: K[g,k,p] = (W1 relu(BN(W0 x[p])) + b1)[g,k]; y[(g s),p] = sum over k of K[g,k,p] x[(g s),window(p,k)]
    Parameters: C^2/r + 2*C/r + C/r*K^2*G + K^2*G; G = C/s groups, r the reduction.
    Source: Li et al., Involution, CVPR 2021, eq. 4 and 6.
    Deviates: at a stride, an odd row or column at the end is averaged over the pixels that exist; the published code
    drops it and fails. At even sizes the two are equal.
    """
    return Operator(
        kernel=Dynamic(context="pixel", reduction=reduction),
        channels=Channels("(g s)", s=group_channels),
        window=Window(kernel_size, stride=stride, dims=dims),
    )


def involution_keras(
    channel: int, group_number: int = 1, kernel_size: int = 3, stride: int = 1, reduction_ratio: int = 1
) -> Operator:
    """Return involution as the Keras example has it.

    It differs from the paper's: groups are interleaved, W1 lays its outputs out taps first, both layers have biases,
    padding at a stride is TensorFlow's `same`, and the hidden width is `channel / reduction_ratio` for any input.

    Formula: K[k,g,p] = (W1 relu(BN(W0 x[p] + b0)) + b1)[k,g]; y[(s g),p] = sum over k of K[k,g,p] x[(s g),window(p,k)]
    Parameters: C*m + 3*m + m*K^2*G + K^2*G; m = C/r hidden channels.
    Source: A. R. Gosthipaty, Involutional neural networks, keras.io, 2021.
    """
    return Operator(
        kernel=Dynamic(
            context="pixel",
            hidden=channel // reduction_ratio,
            norm=BatchNorm(eps=1e-3, momentum=0.01),
            bias=True,
            span="k g o i",
        ),
        channels=Channels("(s g)", g=group_number),
        window=Window(kernel_size, stride=stride, padding="same"),
    )


def dynamic_depthwise(
    kernel_size: int = 7, reduction: int = 4, stride: int = 1, context: str = "pixel", dims: int = 2
) -> Operator:
    """Return involution's generation without its sharing: a kernel from each pixel for each channel.

    With `context="global"`, the homogeneous one: a kernel for each image and channel.

    Formula: K[c,k,p] = (W1 relu(BN(W0 x[p])) + b1)[c,k]; y[c,p] = sum over k of K[c,k,p] x[c,window(p,k)]
    Parameters: C^2/r + 2*C/r + C/r*C*K^2 + C*K^2
    Source: Han et al., On the Connection between Local Attention and Dynamic Depth-wise Convolution, ICLR 2022.
    """
    return Operator(
        kernel=Dynamic(context=context, reduction=reduction),
        channels=Channels("g"),
        window=Window(kernel_size, stride=stride, dims=dims),
    )


def lightweight_conv(kernel_size: int = 7, heads: int = 16, padding: str = "causal") -> Operator:
    """Return LightConv: a static kernel in each head of a sequence, positive and of sum 1.

    Formula: y[(h s),t] = sum over k of softmax_k(W[h,k]) x[(h s),t - K + 1 + k]
    Parameters: h*K
    Source: Wu et al., Pay Less Attention with Lightweight and Dynamic Convolutions, ICLR 2019, eq. 3 and 4.
    """
    window = Window(kernel_size, padding=padding, dims=1)
    return Operator(kernel=Static().then(softmax), channels=Channels("(g s)", g=heads), window=window)


def dynamic_conv1d(kernel_size: int = 7, heads: int = 16, padding: str = "causal") -> Operator:
    """Return DynamicConv of sequences: LightConv with a kernel from each element. Involution's ancestor.

    Formula: y[(h s),t] = sum over k of softmax_k(W x[t])[h,k] x[(h s),t - K + 1 + k]
    Parameters: C*h*K
    Source: Wu et al., Pay Less Attention with Lightweight and Dynamic Convolutions, ICLR 2019, eq. 5 and 6.
    """
    return Operator(
        kernel=Linear(context="pixel", bias=False).then(softmax),
        channels=Channels("(g s)", g=heads),
        window=Window(kernel_size, padding=padding, dims=1),
    )


def weightnet(
    kernel_size: int = 3, multiplier: int = 2, groups: int = 2, reduction: int = 16, stride: int = 1
) -> Operator:
    """Return WeightNet: a convolution whose kernel is made from the image's mean, each output by a map of its own.

    Formula: a = V mean(x) + b; W[o] = T_o sigmoid(U_o a + u_o), T_o block-diagonal in G blocks
    Parameters: C*a + a + a*M*C + M*C + M/G*C^2*K^2; a = max(C/16, 16), M the multiplier.
    Source: Ma et al., WeightNet, ECCV 2020, section 3.2.
    Deviates: V, which the paper's networks share between the layers of a block, is counted here as this layer's.
    """
    squeezed = Hidden(context="global", reduction=reduction, least=16, norm=None, bias=True, activation="identity")
    hidden = Hidden(context=squeezed, hidden=multiplier, apart=True, norm=None, bias=True, activation="sigmoid")
    return Operator(
        kernel=Linear(context=hidden, bias=False, apart=True, groups=groups),
        channels=Channels("i -> o"),
        window=Window(kernel_size, stride=stride),
    )


def pixel_adaptive_conv(kernel_size: int = 5, stride: int = 1, dilation: int = 1) -> Operator:
    """Return PAC: a convolution whose taps are weighed by how alike their pixels are in a guide.

    Formula: y[o,p] = sum over i, k of exp(-|f[p] - f[window(p,k)]|^2 / 2) W[o,i,k] x[i,window(p,k)] + b[o]
    Parameters: C^2*K^2 + C
    Source: Su et al., Pixel-Adaptive Convolutional Neural Networks, CVPR 2019, eq. 3 and 4.
    """
    window = Window(kernel_size, stride=stride, dilation=dilation)
    return Operator(kernel=Gaussian() * Static(), channels=Channels("i -> o"), window=window, bias=True)


def decoupled_dynamic_filter(
    kernel_size: int = 3, combine: str = "mul", stride: int = 1, dilation: int = 1
) -> Operator:
    """Return DDF: a kernel from each pixel for all channels, times (or plus) one from the image for each channel.

    Formula: K[c,k,p] = a FN(W x[p] + b)[k] * A[c,k] FN(W2 relu(W1 mean(x) + b1) + b2)[c,k]; FN the filter_norm
    Parameters: C*K^2 + K^2 + C*m + m + m*C*K^2 + 2*C*K^2; m = C/5, rounded down.
    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, eq. 2 to 5; a = sqrt(2)/K and A as in its code.
    """
    gain = Static(start=2**0.5 / kernel_size, learned=False, shared="g o i k")
    spatial = Linear(context="pixel", shared="g o i", downsample="subsample").then(filter_norm) * gain
    channel = Dynamic(context="global", reduction=5, least=1, norm=None, bias=True).then(filter_norm) * Static()
    return Operator(
        kernel=spatial * channel if combine == "mul" else spatial + channel,
        channels=Channels("g"),
        window=Window(kernel_size, stride=stride, dilation=dilation),
    )


def carafe(
    scale: int = 2, kernel_size: int = 5, encoder_size: int = 3, compressed: int = 64, groups: int = 1
) -> Operator:
    """Return CARAFE: upsampling, each new pixel by a kernel from the old one's neighbourhood.

    Formula: K[g,j,k,p] = softmax_k(W2 * (W1 x + b1) + b2)[g,j,k,p], W2 of e x e;
        y[(g s),q] = sum over k of K[g,j,k,p] x[(g s),window(p,k)], q the j-th of the pixels that p becomes
    Parameters: C*m + m + (m*e^2+1)*K^2*G*s^2; m compressed channels, e the encoder's size, s the scale.
    Source: Wang et al., CARAFE, ICCV 2019, eq. 1 to 4.
    """
    hidden = Hidden(context="pixel", hidden=compressed, norm=None, bias=True, activation="identity")
    return Operator(
        kernel=Linear(context=hidden, reach=encoder_size).then(softmax),
        channels=Channels("(g s)", g=groups),
        window=Window(kernel_size),
        scatter=Window(scale, stride=scale, padding="same"),
    )
