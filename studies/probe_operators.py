"""What is probed, group by group, with the best mean square error that theory gives to each operator on each task.

The operators of the zoo are fitted to the probes: 8 channels, windows of 3 by 3, no stride. What upsamples has scale 1,
what is made for sequences has a window of images, and what has no parameters is followed by a 1x1 convolution.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dynops import Channels, Dynamic, Kernel, Layer, Operator, Project, Static, Window, zoo
from dynops.nets import Bare

FLOOR = 0.75
CODED = 0.9 * FLOOR  # the selector of an image stands at a tenth of its pixels
WINDOW_CODED = 0.9**9 * FLOOR  # ... and in one of nine pixels more often
PAIR = 0.5  # two channels with different selectors share one kernel, which can but average them
MEAN = 1 - 1 / 9  # the mean of nine pixels, one of which is the answer
NOTHING = 1.0  # what reads the pixel alone can but answer with the mean
TASKS = ("channel", "pixel", "pixel_channel", "sample", "position", "marker", "match")


@dataclass(frozen=True)
class Subject:
    """An operator, or operators combined, and what theory says of it."""

    operator: Layer
    best: Mapping[str, float | None]
    """Best mean square error by task, the floor where none is given; None: theory is silent."""
    guided: bool = True
    """Whether its kernels are made from values and code."""

    @property
    def network(self) -> Bare:
        """The network that is trained."""
        return Bare(operator=self.operator, guided=self.guided)


def phi(context: str, shared: str = "") -> Dynamic:
    """Return the generated kernel of the axes: 24 hidden channels, biases, no norm."""
    return Dynamic(context=context, hidden=24, norm=None, bias=True, shared=shared)


def _axes(kernel: Kernel, pattern: str, best: Mapping[str, float | None], **sizes: int) -> Subject:
    return Subject(Operator(kernel=kernel, channels=Channels(pattern, **sizes), window=Window(3)), best)


def _all(value: float | None) -> dict[str, float | None]:
    return dict.fromkeys(TASKS, value)


_CHANNEL: dict[str, float | None] = {"channel": 0.0}
_IMAGE: dict[str, float | None] = {"channel": 0.0, "sample": 0.0}
_CENTRE: dict[str, float | None] = {"pixel": 0.0, "sample": CODED}
_EACH: dict[str, float | None] = {**_CENTRE, "channel": 0.0, "pixel_channel": 0.0}
# what sees a window sees its neighbours' values as well: no floor where it could use them
_WINDOW: dict[str, float | None] = {"channel": None, "pixel": 0.0, "pixel_channel": None, "marker": 0.0, "match": 0.0}

AXES = {
    "static_shared": _axes(Static(), "s", {}),
    "static_specific": _axes(Static(), "g", _CHANNEL),
    "constant_specific": _axes(phi("constant"), "g", _CHANNEL),
    "position_shared": _axes(phi("position"), "s", {"position": 0.0}),
    "global_shared": _axes(phi("global"), "s", {"sample": 0.0}),
    "pixel_shared": _axes(phi("pixel"), "s", _CENTRE),
    "pixel_specific": _axes(phi("pixel"), "g", _EACH),
    "window_shared": _axes(
        phi("window"), "s", {"channel": None, "pixel": 0.0, "sample": WINDOW_CODED, "marker": 0.0, "match": 0.0}
    ),
    "static_plus_pixel": _axes(Static() + phi("pixel", shared="g"), "g", {**_CENTRE, "channel": 0.0}),
    "static_times_pixel": _axes(Static() * phi("pixel", shared="g"), "g", {**_CENTRE, "channel": 0.0}),
    "pixel_4_contiguous": _axes(phi("pixel"), "(g s)", {**_CENTRE, "channel": PAIR, "pixel_channel": PAIR}, g=4),
    "pixel_4_interleaved": _axes(phi("pixel"), "(s g)", _EACH, g=4),
}
# offsets that are linear in the code can point anywhere, one tap for each selector
_POINTS = {"channel": 0.0, "pixel": 0.0, "pixel_channel": 0.0, "sample": None, "marker": 0.0, "match": None}
CONVOLUTIONS = {
    "conv2d": Subject(zoo.conv2d(), _CHANNEL),
    "conv_transpose2d": Subject(zoo.conv_transpose2d(stride=1), _CHANNEL),
    "depthwise": Subject(zoo.depthwise(), _CHANNEL),
    # the four channels of a group have four selectors
    "shared_depthwise": Subject(zoo.shared_depthwise(3, group_channels=4), {}),
    "locally_connected": Subject(zoo.locally_connected(), {"channel": 0.0, "position": 0.0}),
    "low_rank_locally_connected": Subject(zoo.low_rank_locally_connected(), {"channel": 0.0, "position": 0.0}),
    "deformable_conv": Subject(zoo.deformable_conv(), _POINTS),
    "modulated_deformable_conv": Subject(zoo.modulated_deformable_conv(), _POINTS),
}
GENERATED = {
    "involution": Subject(zoo.involution(3, group_channels=4, reduction=2), _CENTRE),
    "involution_keras": Subject(
        zoo.involution_keras(channel=16, group_number=2), {**_CENTRE, "channel": PAIR, "pixel_channel": PAIR}
    ),
    "dynamic_depthwise": Subject(zoo.dynamic_depthwise(3, reduction=2), _EACH),
    "dynamic_depthwise_global": Subject(zoo.dynamic_depthwise(3, reduction=2, context="global"), _IMAGE),
    "lightweight_conv": Subject(replace(zoo.lightweight_conv(heads=2), window=Window(3)), {}),
    # without a bias, a pixel that shows no code can but weigh all taps alike
    "dynamic_conv1d": Subject(
        replace(zoo.dynamic_conv1d(heads=2), window=Window(3)),
        {"channel": MEAN, "pixel": 0.0, "sample": 0.9 * MEAN, "position": MEAN, "marker": MEAN},
    ),
    # one gate for half of the inputs can but scale a kernel
    "weightnet": Subject(zoo.weightnet(), _CHANNEL),
    # an unlearned likeness of pixels that show their values
    "pixel_adaptive_conv": Subject(zoo.pixel_adaptive_conv(3), _all(None)),
    # a normalised filter adds up to zero, a neighbour's choice to one
    "decoupled_dynamic_filter": Subject(
        zoo.decoupled_dynamic_filter(), dict.fromkeys(("channel", "pixel", "pixel_channel", "sample"))
    ),
    "carafe": Subject(zoo.carafe(1, 3, compressed=16, groups=2), {**_WINDOW, "sample": WINDOW_CODED, "match": None}),
}
MIXTURES = {
    "condconv": Subject(zoo.condconv(4), _IMAGE),
    "dynamic_conv": Subject(zoo.dynamic_conv(temperature=1.0), _IMAGE),
    "odconv": Subject(zoo.odconv(), _IMAGE),
    # a tap's weight is made from the part of the image that is pooled there, so no tap is known by its place
    "drconv": Subject(zoo.drconv(4), _all(MEAN)),
}
# a kernel that compares values may use them where it is its number of heads that is short
_COMPARES: dict[str, float | None] = {"channel": None, "marker": 0.0, "match": 0.0}
# without a bias, a query that shows no code prefers no place and no marker
_UNBIASED: dict[str, float | None] = {
    **dict.fromkeys(("channel", "sample", "position", "marker")),
    "pixel": 0.0,
    "match": 0.0,
}
# two hidden numbers say which of four kernels: of the three directions in which they differ, one is lost
_LOST = 0.25
ATTENTION = {
    "stand_alone_attention": Subject(zoo.stand_alone_attention(3, heads=2), _UNBIASED),
    # a query of nothing is nearest to a key that is no marker
    "local_relation": Subject(zoo.local_relation(3, group_channels=4), {"channel": None, "match": 0.0}),
    "neighbourhood_attention": Subject(zoo.neighbourhood_attention(3, heads=2, relative=True), _COMPARES),
    # no pixel of the lattice has a neighbour in another block
    "window_attention": Subject(zoo.window_attention(6, heads=2), _COMPARES),
    "halo_attention": Subject(zoo.halo_attention(6, halo=1, heads=2), _UNBIASED),
    "lambda_layer": Subject(zoo.lambda_layer(16, heads=1, reach=3), _CENTRE),
    "pairwise_attention": Subject(zoo.pairwise_attention(3, dim=16, share=4), {**_WINDOW, "sample": None}),
    "patchwise_attention": Subject(
        zoo.patchwise_attention(3, dim=16, share=4),
        {
            "channel": None,
            "pixel": _LOST,
            "pixel_channel": PAIR,
            "sample": WINDOW_CODED + (1 - 0.9**9) * _LOST,
            "marker": _LOST,
            "match": None,
        },
    ),
    # what a pixel writes into its neighbours' windows is never nothing
    "outlook_attention": Subject(zoo.outlook_attention(3, heads=2, stride=1), _all(None)),
}
MIXERS = {
    "token_mixing": Subject(zoo.token_mixing(), {"position": 0.0}),
    # two hidden tokens for each of 18 x 18 pixels, since gelu(x) - gelu(-x) = x
    "mlp_mixing": Subject(zoo.mlp_mixing((18, 18), hidden=648), {"position": 0.0}, guided=False),
    # the answer is one ninth of a mean from which the pixel is taken: 1 - (1/9)^2 / (72/81)
    "pooling": Subject(replace(zoo.pooling(), out=Project()), _all(1 - 1 / 72)),
    # four of eight channels move, each right one time in four; none to the side that `channel` asks for
    "shift": Subject(replace(zoo.shift(groups=8), out=Project()), {**_all(1 - 1 / 32), "channel": NOTHING}),
    "squeeze_excitation": Subject(zoo.squeeze_excitation(2), _all(NOTHING)),
    "channel_gate": Subject(zoo.channel_gate(2), _all(NOTHING)),
    "spatial_gate": Subject(zoo.spatial_gate(3), _all(NOTHING)),
    "cbam": Subject(zoo.cbam(2, 3), _all(NOTHING)),
}
UNPUBLISHED = {
    "static_plus_dynamic": Subject(zoo.static_plus_dynamic(3, reduction=2), {**_CENTRE, "channel": 0.0}),
    "pixel_mixture": Subject(zoo.pixel_mixture(4, 3, reduction=2), _EACH),
    "involution_with_coordinates": Subject(
        zoo.involution_with_coordinates(3, group_channels=4, reduction=2), {**_CENTRE, "position": None}
    ),
}
GROUPS: dict[str, dict[str, Subject]] = {
    "axes": AXES,
    "convolutions": CONVOLUTIONS,
    "generated": GENERATED,
    "mixtures": MIXTURES,
    "attention": ATTENTION,
    "mixers": MIXERS,
    "unpublished": UNPUBLISHED,
}
SUBJECTS = {name: subject for group in GROUPS.values() for name, subject in group.items()}
