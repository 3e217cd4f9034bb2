"""The heart: what each source sample is worth to the target.

Alignments, direction, table and sampler need torch alone; `learn_rates` and `RateLearner` need scikit-learn too, and
import it when they are first used.
"""

from typing import TYPE_CHECKING, Any

from homing.rates.alignment.direction import Direction
from homing.rates.alignment.error import AlignmentError
from homing.rates.alignment.observe import Alignment, Coverage
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.plan import RatePlan
from homing.rates.sampler import RateBatchSampler, RateSampler
from homing.rates.table import RateTable
from homing.rates.table_rows import gather_updates

if TYPE_CHECKING:
    from homing.rates.estimator import RateLearner
    from homing.rates.learned.learner import learn_rates

__all__ = [
    "Alignment",
    "AlignmentError",
    "Coverage",
    "Direction",
    "Evidence",
    "RateBatchSampler",
    "RateLearner",
    "RatePlan",
    "RateSampler",
    "RateTable",
    "gather_updates",
    "learn_rates",
]


def __getattr__(name: str) -> Any:
    """`learn_rates` and `RateLearner`, when they are first asked for."""
    if name == "RateLearner":
        from homing.rates.estimator import RateLearner

        return RateLearner
    if name == "learn_rates":
        from homing.rates.learned.learner import learn_rates

        return learn_rates
    raise AttributeError(f"module 'homing.rates' has no attribute {name!r}")
