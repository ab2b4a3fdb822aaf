"""How a network is trained: a value, so that it can be a factor of a study."""

from dynops.axes import divisors
from dynops.errors import SpecError
from dynops.specs import Spec, at_least, one_of, spec


@spec
class Recipe(Spec):
    """Optimiser, schedule and regularisation of a training."""

    epochs: int = 20
    """Passes over the training data."""
    batch_size: int = 128
    """Images in a step, on all devices together."""
    accumulate: int = 1
    """Parts of a batch that each device takes one after another, so that memory holds one: a divisor of the batch size.
    Their gradients add up to the batch's; batch norm sees each part alone."""
    optimiser: str = "adamw"
    """`adamw`, or `sgd` with Nesterov momentum."""
    learning_rate: float = 3e-3
    """Peak of the schedule: a linear warm-up, then half a cosine to zero."""
    warmup: float = 0.1
    """How long the warm-up is: a share of all steps, or, as an integer from 1, their number."""
    warmup_from: float = 0.0
    """Share of the peak from which the warm-up rises."""
    momentum: float = 0.9
    """Of `sgd`; `adamw` has 0.9 and 0.999."""
    weight_decay: float = 0.01
    """Of weights; scales and biases (parameters with one axis) decay not at all."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    mixup: float = 0.0
    """Alpha of the mixup of whole images, whose share of a pair has a Beta(alpha, alpha) distribution; 0 mixes none.
    Each image goes with one of its batch; where devices share images in files, with one of its device.
    Source: Zhang et al., mixup, ICLR 2018."""
    cutmix: float = 0.0
    """Alpha of the exchange of boxes between images; 0 cuts none. With `mixup`, each batch goes through one of both, at
    even odds. Source: Yun et al., CutMix, ICCV 2019."""
    ema: float | None = None
    """Decay in a step of a moving average of weights and running statistics, which is then what is evaluated and kept;
    None: the weights themselves are."""
    clip: float | None = 1.0
    """Largest norm of the gradient of all parameters; None never clips."""
    evaluate_every: int = 1
    """Epochs from one evaluation to the next, a divisor of all, so that the last epoch is evaluated."""
    compile: bool = False
    """Whether torch compiles network and loss of a training step, on one GPU and without `accumulate` with CUDA graphs;
    evaluation is not."""
    channels_last: bool = False
    """Whether images and convolutions' weights lie in memory with the channels innermost; the numbers are the same."""
    precision: str = "auto"
    """`float32`; `bfloat16`: the products of forward and backward in it, weights in float32; `auto`: mixed on a GPU, in
    float16 where it has no bfloat16, and float32 elsewhere."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "evaluate_every"):
            at_least(name, getattr(self, name), 1)
        self._check_divisor("evaluate_every", "epochs", "so that the last epoch is evaluated")
        self._check_divisor("accumulate", "batch_size", "so that the parts are equal")
        one_of("compile", self.compile, (False, True))
        one_of("channels_last", self.channels_last, (False, True))
        one_of("optimiser", self.optimiser, ("adamw", "sgd"))
        one_of("precision", self.precision, ("auto", "float32", "bfloat16"))
        in_steps = isinstance(self.warmup, int) and self.warmup >= 1
        for name, legal, rule in (
            ("learning_rate", self.learning_rate > 0, "must be positive"),
            (
                "warmup",
                0 <= self.warmup < 1 or in_steps,
                "must be a share from 0 to below 1, or a number of steps, which is an integer",
            ),
            ("warmup_from", 0 <= self.warmup_from <= 1, "must be a share from 0 to 1"),
            ("momentum", 0 <= self.momentum < 1, "must lie from 0 to below 1"),
            ("weight_decay", self.weight_decay >= 0, "must not be negative"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "must be a share from 0 to below 1"),
            ("mixup", self.mixup >= 0, "must not be negative"),
            ("cutmix", self.cutmix >= 0, "must not be negative"),
            ("ema", self.ema is None or 0 < self.ema < 1, "must lie between 0 and 1, or be None"),
            ("clip", self.clip is None or self.clip > 0, "must be positive, or None"),
        ):
            if not legal:
                raise SpecError(f"{name} has {getattr(self, name)}: {rule}.")

    def _check_divisor(self, name: str, whole: str, purpose: str) -> None:
        part, total = getattr(self, name), getattr(self, whole)
        if total % part:
            raise SpecError(
                f"{name} has {part}, {whole} has {total}: must be a divisor, {purpose}. "
                f"Divisors of {total}: {divisors(total)}."
            )
