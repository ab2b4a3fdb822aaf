"""Ablation studies: factors, the runner on Optuna, attribution, and the report."""

from dynops.ablation.effects import Effects, effects
from dynops.ablation.factor import Factor
from dynops.ablation.plan import Bounded, Difference, Exceeds, Hypothesis, Interaction, Plan
from dynops.ablation.report import Report, report
from dynops.ablation.store import read_study
from dynops.ablation.study import Job, Study

__all__ = [
    "Bounded",
    "Difference",
    "Effects",
    "Exceeds",
    "Factor",
    "Hypothesis",
    "Interaction",
    "Job",
    "Plan",
    "Report",
    "Study",
    "effects",
    "read_study",
    "report",
]
