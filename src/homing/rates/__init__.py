"""The heart: what each source sample is worth to the target. Needs torch, numpy and scikit-learn, nothing else."""

from homing.rates.alignment import Alignment, Coverage
from homing.rates.alignment_error import AlignmentError
from homing.rates.direction import Direction
from homing.rates.evidence import Evidence
from homing.rates.learner import learn_rates
from homing.rates.plan import RatePlan
from homing.rates.table import RateTable
from homing.rates.table_rows import gather_updates

__all__ = [
    "Alignment",
    "AlignmentError",
    "Coverage",
    "Direction",
    "Evidence",
    "RatePlan",
    "RateTable",
    "gather_updates",
    "learn_rates",
]
