"""Ablation studies: factors, the runner on Optuna, attribution, and the report."""

from dynops.ablation.claims import Bounded, Difference, Exceeds, Hypothesis, Interaction, Slope, Within
from dynops.ablation.cluster import Ray
from dynops.ablation.designs import Fraction, FullFactorial, OneFactor
from dynops.ablation.effects import Effects, effects
from dynops.ablation.factor import Factor
from dynops.ablation.job import Job
from dynops.ablation.joining import join
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.report import Report, report
from dynops.ablation.searches.plan import Objective, SearchPlan, read_search
from dynops.ablation.searches.report import SearchReport, search_report
from dynops.ablation.searches.search import Range, Search
from dynops.ablation.store import read_study
from dynops.ablation.study import Study
from dynops.ablation.tuning import Tuning

__all__ = [
    "Bounded",
    "Difference",
    "Effects",
    "Exceeds",
    "Factor",
    "Fraction",
    "FullFactorial",
    "Hypothesis",
    "Interaction",
    "Job",
    "Objective",
    "OneFactor",
    "Plan",
    "Range",
    "Ray",
    "Report",
    "Search",
    "SearchPlan",
    "SearchReport",
    "Slope",
    "Study",
    "Tuning",
    "Within",
    "effects",
    "join",
    "read_search",
    "read_study",
    "report",
    "search_report",
]
