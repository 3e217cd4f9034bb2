"""The heart: what each source sample is worth to the target. Needs torch, numpy and scikit-learn, nothing else."""

from homing.rates.evidence import Evidence
from homing.rates.learner import learn_rates
from homing.rates.plan import RatePlan

__all__ = ["Evidence", "RatePlan", "learn_rates"]
