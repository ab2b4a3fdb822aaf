"""Attention: the kernel compares a pixel with those in its window."""

from dynops.ops import Block, Global, Window
from dynops.parts.channels import Channels
from dynops.parts.dynamic import Dynamic, Hidden, Linear
from dynops.parts.features import Pair, Patch
from dynops.parts.kernel import Static
from dynops.parts.norm import BatchNorm
from dynops.parts.normalise import softmax
from dynops.parts.operator import Operator, Project
from dynops.parts.places import Relative
from dynops.parts.query import Positions, Query, QueryKey, QueryPosition


def stand_alone_attention(kernel_size: int = 7, heads: int = 8, stride: int = 1) -> Operator:
    """Return SASA: attention to the window, with row and column halves of positions.

    Outside the input, keys and values are zero, so a border pixel's softmax gives weight to what is not there.

    Formula: K[h,k,p] = softmax_k(q[h,p] . (key[h,window(p,k)] + r[h,k])); r[h,k] = [row; column]
    Parameters: 3*C^2 + K*C
    Source: Ramachandran et al., Stand-Alone Self-Attention in Vision Models, NeurIPS 2019, eq. 3.
    """
    return Operator(
        kernel=QueryKey(scaled=False, positions=Positions(layout="halves")).then(softmax),
        channels=Channels("(g s)", g=heads),
        window=Window(kernel_size, stride=stride),
        value=Project(),
    )


def local_relation(
    kernel_size: int = 7, group_channels: int = 8, relation: str = "squared_distance", stride: int = 1
) -> Operator:
    """Return the local relation layer: how alike two pixels are, plus a prior for each place.

    Formula: K[g,k,p] = softmax_k(-(q[g,p] - key[g,window(p,k)])^2 + prior[g,k]), taps outside left out
    Parameters: 2*C*G + G*K^2; G = C/s groups, each with a query of one channel.
    Source: Hu et al., Local Relation Networks for Image Recognition, ICCV 2019, eq. 2 to 5.
    Deviates: the prior is a table, as in the authors' second version, not a network of the place.
    """
    return Operator(
        kernel=(QueryKey(relation=relation, query=Query(dim=1)) + Static(start=0.0)).then(softmax),
        channels=Channels("(g s)", s=group_channels),
        window=Window(kernel_size, stride=stride, border="mask"),
    )


def neighbourhood_attention(
    kernel_size: int = 7, heads: int = 4, dilation: int = 1, relative: bool = False
) -> Operator:
    """Return NAT's attention to the nearest K^2 pixels, all inside the input.

    Formula: K[h,k,p] = softmax_k(q[h,p] . key[h,window(p,k)] / sqrt(C/h))
    Parameters: 4*C^2 + 4*C; with `relative`, the first version's bias, h*(2*K-1)^2 more.
    Source: Hassani et al., Neighborhood Attention Transformer, CVPR 2023, eq. 2 to 4; dilated: Hassani and Shi, 2022.
    """
    scores = QueryKey(query=Query(bias=True))
    return Operator(
        kernel=(scores + Relative() if relative else scores).then(softmax),
        channels=Channels("(g s)", g=heads),
        window=Window(kernel_size, dilation=dilation, border="shift"),
        value=Project(bias=True),
        out=Project(bias=True),
    )


def window_attention(block: int = 7, heads: int = 4, shift: int = 0) -> Operator:
    """Return Swin's attention inside blocks, with a bias for each relative place.

    Formula: K[h,k,p] = softmax_k(q[h,p] . key[h,block(p,k)] / sqrt(C/h) + B[h,place(p,k)])
    Parameters: 4*C^2 + 4*C + h*(2*B-1)^2; B the block's side.
    Source: Liu et al., Swin Transformer, ICCV 2021, eq. 4; `shift` is its cyclic shift with the mask.
    Deviates: blocks that the grid cuts off attend to the pixels that exist; the published code pads with zeros.
    """
    return Operator(
        kernel=(QueryKey(query=Query(bias=True)) + Relative()).then(softmax),
        channels=Channels("(g s)", g=heads),
        window=Block(block, shift=shift),
        value=Project(bias=True),
        out=Project(bias=True),
    )


def halo_attention(block: int = 8, halo: int = 3, heads: int = 8, stride: int = 1) -> Operator:
    """Return HaloNet's attention of a block to itself and the pixels around it.

    Outside the input, keys and values are zero, as in the public code, so a border pixel's softmax gives weight to what
    is not there.

    Formula: K[h,k,p] = softmax_k(q[h,p] . (key[h,block(p,k)] / sqrt(C/h) + row[place(p,k)] + column[place(p,k)]))
    Parameters: 3*C^2 + 2*(2*(B+2*H)-1)*C/h; B the block's side, H the halo.
    Source: Vaswani et al., Scaling Local Self-Attention (HaloNets), CVPR 2021, eq. 1 to 3.
    """
    return Operator(
        kernel=QueryKey(positions=Positions(layout="sum", shared=True)).then(softmax),
        channels=Channels("(g s)", g=heads),
        window=Block(block, halo=halo, stride=stride, border="zeros"),
        value=Project(),
    )


def lambda_layer(dim: int = 16, heads: int = 4, reach: int = 23) -> Operator:
    """Return the lambda layer: queries against what a global context says, and against positions around the pixel.

    Formula: y[(h v),p] = sum over k of q[h,k,p] (sum over m of (softmax_m(key[k,m]) + E[k,m-p]) V[v,m] + b[k])
    Parameters: C*k*h + C*k + C^2/h + k*R^2 + k + 2*k*h + 2*C/h; k channels of a query, R the reach of positions.
    Source: Bello, LambdaNetworks, ICLR 2021, eq. 1 to 3; b as in the public code.
    """
    return Operator(
        context=Hidden(context="pixel", hidden=dim, apart=True, activation="identity"),
        kernel=QueryKey(
            query=Query(context="operator"), scaled=False, distribution=True, positions=Positions(reach=reach)
        ),
        channels=Channels("s -> (o s)", o=heads),
        window=Global(),
        value=Project(reduction=heads, norm=BatchNorm()),
        bias=QueryPosition(query=Query(context="operator")),
    )


def pairwise_attention(
    kernel_size: int = 7, dim: int = 16, share: int = 8, stride: int = 1, dilation: int = 1
) -> Operator:
    """Return SAN's pairwise attention: each tap's weights from the difference of two pixels and of their places.

    Formula: K[g,k,p] = softmax_k(W1 relu(BN(W0 relu(BN([a[p] - c[p'], l[p] - l[p']])))) + b1)[g], p' = window(p,k)
    Parameters: 2*R*(C+1) + C*(C+1) + 2*(R+2) + (R+2)*R + 2*R + R*S + S + 6; R the dim, S = C/share kernels.
    Source: Zhao et al., Exploring Self-attention for Image Recognition, CVPR 2020, eq. 2 and 3 (subtraction).
    """
    return Operator(
        kernel=Dynamic(context=Pair(dim=dim), hidden=dim).then(softmax),
        channels=Channels("(s g)", s=share),
        window=Window(kernel_size, stride=stride, dilation=dilation, border="reflect"),
        value=Project(bias=True),
    )


def patchwise_attention(kernel_size: int = 7, dim: int = 16, share: int = 8, stride: int = 1) -> Operator:
    """Return SAN's patchwise attention: all weights of a window from the whole patch.

    Formula: K[g,k,p] = (W1 relu(BN(W0 relu(BN([a[p], c[window(p)]])))) + b1)[g,k]
    Parameters: 2*R*(C+1) + C*(C+1) + 2*R*(K^2+1) + R*(K^2+1)*S + 2*S + S^2*K^2 + S*K^2; R the dim, S = C/share.
    Source: Zhao et al., Exploring Self-attention for Image Recognition, CVPR 2020, eq. 4 and 5 (concatenation).
    """
    return Operator(
        kernel=Linear(context=Hidden(context=Patch(dim=dim), hidden=1, apart=True)),
        channels=Channels("(s g)", s=share),
        window=Window(kernel_size, stride=stride, border="reflect"),
        value=Project(bias=True),
    )


def outlook_attention(kernel_size: int = 3, heads: int = 4, stride: int = 2) -> Operator:
    """Return VOLO's outlook attention: each pixel rewrites its whole window by a generated kernel for each tap.

    Formula: A[h,j,k,p] = softmax_k(W x[p] + b)[h,j,k]; y[q] = sum over all p, j with window(p,j) = q and over k of
        A[h,j,k,p] V[window(p,k)]
    Parameters: 2*C^2 + C + (C+1)*h*K^4
    Source: Yuan et al., VOLO, 2021, eq. 3 to 5.
    Deviates: logits are not divided by sqrt(C/h); W can do that.
    """
    window = Window(kernel_size, stride=stride)
    return Operator(
        kernel=Linear(context="pixel").then(softmax),
        channels=Channels("(g s)", g=heads),
        window=window,
        scatter=window,
        value=Project(),
        out=Project(bias=True),
    )
