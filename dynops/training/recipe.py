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
    """Images in a step."""
    optimiser: str = "adamw"
    """`adamw`, or `sgd` with Nesterov momentum."""
    learning_rate: float = 3e-3
    """Peak of the schedule: a linear warm-up, then half a cosine to zero."""
    warmup: float = 0.1
    """Share of all steps that the warm-up takes."""
    momentum: float = 0.9
    """Of `sgd`; `adamw` has 0.9 and 0.999."""
    weight_decay: float = 0.01
    """Of weights; scales and biases (parameters with one axis) decay not at all."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    clip: float | None = 1.0
    """Largest norm of the gradient of all parameters; None never clips."""
    evaluate_every: int = 1
    """Epochs from one evaluation to the next, a divisor of all, so that the last epoch is evaluated."""
    compile: bool = False
    """Whether torch compiles network and loss of a training step, on a GPU with CUDA graphs; evaluation is not."""

    def __post_init__(self) -> None:
        at_least("epochs", self.epochs, 1)
        at_least("batch_size", self.batch_size, 1)
        at_least("evaluate_every", self.evaluate_every, 1)
        if self.epochs % self.evaluate_every:
            raise SpecError(
                f"evaluate_every has {self.evaluate_every}, epochs has {self.epochs}: must be a divisor, so that the "
                f"last epoch is evaluated. Divisors of {self.epochs}: {divisors(self.epochs)}."
            )
        one_of("compile", self.compile, (False, True))
        one_of("optimiser", self.optimiser, ("adamw", "sgd"))
        for name, legal, rule in (
            ("learning_rate", self.learning_rate > 0, "must be positive"),
            ("warmup", 0 <= self.warmup < 1, "must be a share from 0 to below 1"),
            ("momentum", 0 <= self.momentum < 1, "must lie from 0 to below 1"),
            ("weight_decay", self.weight_decay >= 0, "must not be negative"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "must be a share from 0 to below 1"),
            ("clip", self.clip is None or self.clip > 0, "must be positive, or None"),
        ):
            if not legal:
                raise SpecError(f"{name} has {getattr(self, name)}: {rule}.")
