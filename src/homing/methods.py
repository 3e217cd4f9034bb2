"""The one table of methods: what each is called, how it plans, which labels it takes, whether it learns while training.

Nothing heavy is imported here: recipes are checked by it before torch is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MethodName = Literal[
    "hierarchical",
    "instance",
    "uniform",
    "source_only",
    "target_only",
    "pooled",
    "pooled_oversampled",
    "sequential",
    "probe",
    "density_ratio",
    "l2rw",
    "meta_weight_net",
    "oracle",
]
Basis = Literal["nothing", "weight", "features"]
OnlineKind = Literal["instance", "l2rw", "meta_weight_net"]


@dataclass(frozen=True)
class Method:
    """A way to decide how much each source sample counts.

    Attributes:
        title: For people, in tables and reports.
        plans_by: Name of the planner (`homing.evaluation.baselines`), "learned" for the learned rates.
        basis: What the planner looks at: nothing; the target's weight alone, which is judged on features unless the
            recipe gives it; or features of both pools.
        online: What is learned of single samples while the model trains; None: nothing.
        passes: Gradients evaluated of each sample of a step.
        apply: How rates are applied: sample or weight; None: as the recipe says.
        takes_other: Whether it can train on a source with classes of its own.
        takes_unlabelled: Whether it can train for a target without labels.
        source_share: Share of the steps that train on the source alone before the target alone; 0: both together.
        trains: Whether anything is fine-tuned; False: the model is what fine-tuning by learned rates starts from.
        is_compared: Whether `homing compare` trains it unless told otherwise.
    """

    title: str
    plans_by: str
    basis: Basis
    online: OnlineKind | None = None
    passes: int = 1
    apply: Literal["sample", "weight"] | None = None
    takes_other: bool = False
    takes_unlabelled: bool = False
    source_share: float = 0.0
    trains: bool = True
    is_compared: bool = False


METHODS: dict[str, Method] = {
    "hierarchical": Method("homing", "learned", "features", takes_other=True, takes_unlabelled=True),
    "instance": Method("homing, instance rates", "uniform", "weight", online="instance", is_compared=True),
    "uniform": Method("Uniform rates", "uniform", "weight", takes_other=True),
    "source_only": Method("Source only", "source_only", "nothing", takes_unlabelled=True),
    "target_only": Method("Target only", "target_only", "nothing", takes_other=True, is_compared=True),
    "pooled": Method("Both pooled", "pooled", "nothing", takes_other=True, is_compared=True),
    "pooled_oversampled": Method("Pooled, target oversampled", "uniform", "weight", takes_other=True, is_compared=True),
    # half of the steps: fine-tuning once for each fold to choose the share would cost too much
    "sequential": Method(
        "Source, then target", "uniform", "weight", takes_other=True, source_share=0.5, is_compared=True
    ),
    "probe": Method(
        "Probe, nothing fine-tuned", "learned", "features", takes_other=True, takes_unlabelled=True, trains=False
    ),
    "density_ratio": Method("Density ratio", "density_ratio", "features", is_compared=True),
    "l2rw": Method("L2RW", "uniform", "weight", online="l2rw", passes=2, apply="weight", is_compared=True),
    "meta_weight_net": Method(
        "Meta-Weight-Net", "uniform", "weight", online="meta_weight_net", apply="weight", is_compared=True
    ),
    "oracle": Method("Oracle (true rates)", "oracle", "features"),
}
REFERENCE = "pooled_oversampled"
"""What learned rates must beat."""


def title_of(name: str) -> str:
    """What a method is called; names that the table does not know stay as they are."""
    return METHODS[name].title if name in METHODS else name


def online_methods() -> tuple[str, ...]:
    """Methods that look at each sample's gradient while the model trains."""
    return tuple(name for name, method in METHODS.items() if method.online is not None)
