"""Learned rates, kept while a run lasts: a resumed run goes on with the very rates that it began with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

from homing.rates.learned.plan import RatePlan
from homing.rates.learned.scorer import Scorer
from homing.training.checkpoint import Checkpoint, check_identity, load_checkpoint, newest_checkpoint, save_checkpoint
from homing.training.distributed import on_main


def remembered(
    accelerator: Accelerator,
    place: Path,
    identity: dict[str, str],
    learn: Callable[[], RatePlan],
    *,
    resume: bool,
    allow_change: bool = False,
) -> RatePlan:
    """TEMPORARY."""
    return on_main(accelerator, lambda: _remembered(place, identity, learn, resume=resume, allow_change=allow_change))


def _remembered(
    place: Path, identity: dict[str, str], learn: Callable[[], RatePlan], *, resume: bool, allow_change: bool = False
) -> RatePlan:
    """The rates that were learned before an interruption, or newly learned ones, which are saved.

    Args:
        place: Folder of their own.
        identity: What they were learned from.
        learn: Learns them.
        resume: Whether to look for what is there.
        allow_change: Whether they may have been learned from other pools, and are learned anew then.

    Raises:
        CheckpointError: What is there is damaged, of other pools, or cannot be written.
    """
    path = newest_checkpoint(place) if resume else None
    if path is not None:
        saved = load_checkpoint(path)
        check_identity(path, saved.state.get("identity"), identity, allow_change=allow_change)
        if saved.state["identity"] == identity:
            return _to_plan(saved)
    plan = learn()
    save_checkpoint(place, 0, _to_checkpoint(plan, identity), keep=1)
    return plan


def _to_checkpoint(plan: RatePlan, identity: dict[str, str]) -> Checkpoint:
    own = {"rates": plan.rates} | ({} if plan.suggested is None else {"suggested": plan.suggested})
    scorer = {} if plan.scorer is None else {"scorer": plan.scorer.tensors()}
    state = {name: getattr(plan, name) for name in ("target_weight", "phi", "judged", "warnings", "doubted")}
    return Checkpoint({"plan": own, "descriptors": plan.descriptors, **scorer}, {**state, "identity": identity})


def _to_plan(saved: Checkpoint) -> RatePlan:
    own, state = saved.tensors["plan"], saved.state
    return RatePlan(
        rates=own["rates"],
        target_weight=state["target_weight"],
        phi=state["phi"],
        descriptors=saved.tensors["descriptors"],
        judged=state["judged"],
        warnings=state["warnings"],
        suggested=own.get("suggested"),
        doubted=[(row, other) for row, other in state["doubted"]],
        scorer=Scorer.from_tensors(saved.tensors["scorer"]) if "scorer" in saved.tensors else None,
    )
