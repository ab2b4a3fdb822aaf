"""Training with Lightning: the only place that knows it."""

from dynops.training.experiment import Experiment
from dynops.training.recipe import Recipe
from dynops.training.train import train, train_together

__all__ = ["Experiment", "Recipe", "train", "train_together"]
