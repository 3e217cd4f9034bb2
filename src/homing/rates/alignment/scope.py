"""Which parameters an alignment looks at: all, those of the last stage and the head, the head's, or a predicate's."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import nn

from homing.rates.alignment.error import AlignmentError

Scope = str | Callable[[str], bool]


def names_in_scope(model: nn.Module, scope: Scope) -> list[str]:
    """The names of the trainable parameters in scope, in the model's order.

    Args:
        model: An unwrapped model.
        scope: `all`, `last_stage`, `head`, or a predicate on parameter names. `head` is what timm's `get_classifier()`
            gives, or the last linear layer; `last_stage` is timm's last `feature_info` module and all that follows.

    Raises:
        AlignmentError: Nothing in scope trains, or the model does not say what its last stage is.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not names:
        raise AlignmentError("the model has no trainable parameters, so no sample can pull on it; unfreeze some")
    if callable(scope):
        chosen = [name for name in names if scope(name)]
    elif scope == "all":
        chosen = names
    elif scope == "head":
        prefixes = _head(model)
        chosen = [name for name in names if name.startswith(prefixes)]
    elif scope == "last_stage":
        chosen = _from_last_stage(model, names)
    else:
        raise AlignmentError(f"unknown scope {scope!r}; allowed: all, last_stage, head, or a predicate on names")
    if not chosen:
        raise AlignmentError(f"scope {scope!r} holds none of the {len(names)} trainable parameters")
    return chosen


def _head(model: nn.Module) -> tuple[str, ...]:
    names = {id(module): name for name, module in model.named_modules()}
    get_classifier = getattr(model, "get_classifier", None)
    found = get_classifier() if callable(get_classifier) else None
    heads = list(found) if isinstance(found, tuple | list | nn.ModuleList) else [found]
    prefixes = tuple(f"{names[id(head)]}." for head in heads if isinstance(head, nn.Module) and id(head) in names)
    if prefixes:
        return prefixes
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise AlignmentError("the model has no linear layer to take for its head; pass a predicate on names as scope")
    return (f"{linear[-1]}." if linear[-1] else "",)


def _from_last_stage(model: nn.Module, names: list[str]) -> list[str]:
    stages = list(getattr(model, "feature_info", None) or [])
    last = stages[-1].get("module", "") if stages and isinstance(stages[-1], dict) else ""
    prefix = f"{last}."
    order = [name for name, _ in model.named_parameters()]
    start = next((i for i, name in enumerate(order) if last and name.startswith(prefix)), None)
    if start is None:
        raise AlignmentError(
            "the model does not say what its last stage is (no feature_info, as timm's models have); "
            "pass a predicate on names as scope"
        )
    chosen = set(order[start:])
    return [name for name in names if name in chosen]


def only_linear(model: nn.Module, names: Collection[str]) -> nn.Linear | None:
    """The linear layer that owns all of these parameters, and no others that train; None where there is none."""
    owners = {name.rpartition(".")[0] for name in names}
    owner = model.get_submodule(owners.pop()) if len(owners) == 1 else None
    return owner if type(owner) is nn.Linear else None
