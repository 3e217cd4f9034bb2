"""The heart: what each source sample is worth to the target.

Alignments, direction and table need torch alone; `learn_rates` needs scikit-learn too, and imports it when first used.
"""

from typing import TYPE_CHECKING, Any

from homing.rates.alignment import Alignment, Coverage
from homing.rates.alignment_error import AlignmentError
from homing.rates.direction import Direction
from homing.rates.evidence import Evidence
from homing.rates.plan import RatePlan
from homing.rates.table import RateTable
from homing.rates.table_rows import gather_updates

if TYPE_CHECKING:
    from homing.rates.learner import learn_rates

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


def __getattr__(name: str) -> Any:
    """`learn_rates`, when it is first asked for."""
    if name == "learn_rates":
        from homing.rates.learner import learn_rates

        return learn_rates
    raise AttributeError(f"module 'homing.rates' has no attribute {name!r}")
