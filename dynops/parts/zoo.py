"""The published operators, one line each; C channels in and out, K window side, G groups, r reduction."""

from dynops.ops import Window
from dynops.parts.channels import Channels
from dynops.parts.dynamic import Dynamic
from dynops.parts.kernel import Static
from dynops.parts.norm import BatchNorm
from dynops.parts.normalise import softmax
from dynops.parts.operator import Operator, Project
from dynops.parts.query import Positions, Query, QueryKey


def conv2d(kernel_size: int = 3, stride: int = 1, dilation: int = 1, groups: int = 1, bias: bool = False) -> Operator:
    """Return the convolution: dense static kernels, C_out * (C_in / groups) * K^2 parameters (+ C_out: bias)."""
    channels = Channels("i -> o") if groups == 1 else Channels("(g i) -> (g o)", g=groups)
    return Operator(kernel=Static(), channels=channels, window=_window(kernel_size, stride, dilation), bias=bias)


def depthwise(kernel_size: int = 3, stride: int = 1, dilation: int = 1, bias: bool = False) -> Operator:
    """Return the depthwise convolution: one static kernel for each channel, C * K^2 parameters."""
    window = _window(kernel_size, stride, dilation)
    return Operator(kernel=Static(), channels=Channels("g"), window=window, bias=bias)


def shared_depthwise(kernel_size: int = 7, group_channels: int = 16, stride: int = 1) -> Operator:
    """Return involution's sharing without its generation: static kernels shared in groups, G * K^2 parameters."""
    return Operator(
        kernel=Static(), channels=Channels("(g s)", s=group_channels), window=Window(kernel_size, stride=stride)
    )


def involution(kernel_size: int = 7, group_channels: int = 16, reduction: int = 4, stride: int = 1) -> Operator:
    """Return involution: a kernel from each pixel, shared in groups; C^2/r + 2C/r + (C/r) K^2 G + K^2 G parameters.

    Source: Li et al., Involution, CVPR 2021, eq. 4 and 6.
    Deviates: at a stride, an odd row or column at the end is averaged over the pixels that exist; the published code
    drops it and fails. At even sizes the two are equal.
    """
    return Operator(
        kernel=Dynamic(context="pixel", reduction=reduction),
        channels=Channels("(g s)", s=group_channels),
        window=Window(kernel_size, stride=stride),
    )


def involution_keras(
    channel: int, group_number: int = 1, kernel_size: int = 3, stride: int = 1, reduction_ratio: int = 1
) -> Operator:
    """Return involution as the Keras example has it.

    It differs from the paper's: groups are interleaved, W1 lays its outputs out taps first, both layers have biases,
    padding at a stride is TensorFlow's `same`, and the hidden width is `channel / reduction_ratio` for any input.

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


def dynamic_depthwise(kernel_size: int = 7, reduction: int = 4, stride: int = 1, context: str = "pixel") -> Operator:
    """Return involution's generation without its sharing: a kernel from each pixel for each channel.

    With `context="global"`, one kernel for each image and channel. C^2/r + 2C/r + (C/r) C K^2 + C K^2 parameters.

    Source: Han et al., On the Connection between Local Attention and Dynamic Depth-wise Convolution, ICLR 2022.
    """
    return Operator(
        kernel=Dynamic(context=context, reduction=reduction),
        channels=Channels("g"),
        window=Window(kernel_size, stride=stride),
    )


def stand_alone_attention(kernel_size: int = 7, heads: int = 8, stride: int = 1) -> Operator:
    """Return SASA: attention to the window, `q.k + q.r` with row and column halves; 3C^2 + KC parameters.

    Outside the input, keys and values are zero, so a border pixel's softmax gives weight to what is not there.

    Source: Ramachandran et al., Stand-Alone Self-Attention in Vision Models, NeurIPS 2019, eq. 3.
    """
    return Operator(
        kernel=QueryKey(scaled=False, positions=Positions(layout="halves")).then(softmax),
        channels=Channels("(g s)", g=heads),
        window=Window(kernel_size, stride=stride),
        value=Project(),
    )


def neighbourhood_attention(kernel_size: int = 7, heads: int = 4, dilation: int = 1) -> Operator:
    """Return NAT's attention to the nearest K^2 pixels, all inside the input; 4C^2 + 4C parameters.

    Source: Hassani et al., Neighborhood Attention Transformer, CVPR 2023; dilated: Hassani and Shi, 2022.
    Deviates: without the first version's bias for relative positions, as the authors' library today.
    """
    return Operator(
        kernel=QueryKey(query=Query(bias=True)).then(softmax),
        channels=Channels("(g s)", g=heads),
        window=Window(kernel_size, dilation=dilation, border="shift"),
        value=Project(bias=True),
        out=Project(bias=True),
    )


def _window(size: int, stride: int, dilation: int) -> Window:
    return Window(size, stride=stride, dilation=dilation)
