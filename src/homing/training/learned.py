"""Learned rates, kept while a run lasts: a resumed run goes on with the very rates that it began with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from homing.errors import CheckpointError, Interrupted
from homing.rates.learned.guesses import Guesses
from homing.rates.learned.plan import Doubt, RatePlan
from homing.rates.learned.scorer import Scorer
from homing.training.checkpoint import Checkpoint, check_identity, load_checkpoint, newest_checkpoint, save_checkpoint
from homing.training.distributed import on_main

_PLAIN = ("target_weight", "phi", "judged", "warnings", "source_share")  # what JSON can hold of a plan
_PAIRS = ("doubted", "wanted")  # lists of pairs


def remembered(
    accelerator: Accelerator,
    place: Path,
    identity: dict[str, str],
    learn: Callable[[], RatePlan],
    *,
    resume: bool,
    allow_change: bool = False,
    together: bool = False,
) -> RatePlan:
    """The rates that were learned before an interruption, or newly learned ones, which are saved.

    The main process learns while the others wait, or all of them do; they go on with what the main one saved, and
    nothing of the pool's size is sent. Nothing that is computed again is ever compared: a resumed run has the very
    numbers that it began with.

    Args:
        accelerator: The processes; all of them call this together.
        place: Folder of their own, that all processes see.
        identity: What they were learned from.
        learn: Learns them.
        resume: Whether to look for what is there.
        allow_change: Whether they may have been learned from other pools, and are learned anew then.
        together: Whether all processes learn them, each its share.

    Raises:
        CheckpointError: What is there is damaged, of other pools, or cannot be written; or another process cannot see
            what the main one wrote.
    """
    own: list[RatePlan] = []  # of the main process

    def look() -> str | None:
        path = newest_checkpoint(place) if resume else None
        plan = None if path is None else _found(path, identity, allow_change=allow_change)
        own.extend([plan] if plan else [])
        return path.name if path and plan else None

    def save() -> str:
        own[:] = own or [learn()]
        return save_checkpoint(place, 0, _to_checkpoint(own[0], identity), keep=1).name

    name = on_main(accelerator, look)
    if name is None:
        own = [_learned_by_all(accelerator, learn)] if together else []
        name = on_main(accelerator, save)
    if accelerator.is_main_process:
        return own[0]
    if not (place / name).exists():
        raise CheckpointError(
            f"{place / name}: process {accelerator.process_index} does not see what the main process wrote; --output"
            " must be a folder that all machines share"
        )
    return _to_plan(load_checkpoint(place / name))


def _found(path: Path, identity: dict[str, str], *, allow_change: bool) -> RatePlan | None:
    """What a checkpoint holds, where it was learned from these very things."""
    saved = load_checkpoint(path)
    check_identity(path, saved.state.get("identity"), identity, allow_change=allow_change)
    return _to_plan(saved) if saved.state["identity"] == identity else None


def _learned_by_all(accelerator: Accelerator, learn: Callable[[], RatePlan]) -> RatePlan:
    try:
        return learn()
    except Interrupted as error:
        error.shared = not accelerator.is_main_process  # a launcher tells all of them to stop: one says so
        raise


def _to_checkpoint(plan: RatePlan, identity: dict[str, str]) -> Checkpoint:
    own = {"rates": plan.rates} | ({} if plan.suggested is None else {"suggested": plan.suggested})
    scorer = {} if plan.scorer is None else {"scorer": plan.scorer.tensors()}
    guesses = {} if plan.guesses is None else {"guesses": plan.guesses.tensors()}
    doubt = {} if plan.doubt is None else {"doubt": {"draws": plan.doubt.draws, "right": plan.doubt.right}}
    state = {name: getattr(plan, name) for name in (*_PLAIN, *_PAIRS)} | {"identity": identity}
    return Checkpoint({"plan": own, "descriptors": plan.descriptors, **scorer, **guesses, **doubt}, state)


def _to_plan(saved: Checkpoint) -> RatePlan:
    own, state = saved.tensors["plan"], saved.state
    plain = {name: state[name] for name in _PLAIN}
    pairs: dict[str, Any] = {name: [(row, other) for row, other in state.get(name, ())] for name in _PAIRS}
    return RatePlan(
        **plain,
        **pairs,
        rates=own["rates"],
        descriptors=saved.tensors["descriptors"],
        suggested=own.get("suggested"),
        scorer=Scorer.from_tensors(saved.tensors["scorer"]) if "scorer" in saved.tensors else None,
        guesses=Guesses(**saved.tensors["guesses"]) if "guesses" in saved.tensors else None,
        doubt=Doubt(**saved.tensors["doubt"]) if "doubt" in saved.tensors else None,
    )
