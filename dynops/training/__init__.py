"""Training with Lightning: the only place that knows it."""

from dynops.training import recipes
from dynops.training.experiment import Experiment
from dynops.training.export import export
from dynops.training.recipe import Recipe
from dynops.training.restore import restore
from dynops.training.train import train, train_together

__all__ = ["Experiment", "Recipe", "export", "recipes", "restore", "train", "train_together"]
