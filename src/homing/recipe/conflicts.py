"""Settings of a recipe that cannot go together, found in any tree of settings, also one that is not valid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from homing.methods import METHODS, online_methods
from homing.recipe.task_conflicts import conflicts_of_task

LENGTHS = ("epochs", "steps", "minutes")
"""Keys of `training`, one of which says how long it is."""
_BASELINES = ("evaluation", "baselines")


class Conflict(ValueError):
    """Settings that cannot go together; `found` has a (key path, what is wrong) for each."""

    def __init__(self, found: list[tuple[tuple[str, str], str]]) -> None:
        super().__init__("; ".join(message for _, message in found))
        self.found = found


def is_one_pool(value: Any) -> bool:
    """Whether a role of the data is one pool: not several by name, each a section of its own."""
    named = isinstance(value, dict) and value and "path" not in value
    return not (named and all(isinstance(pool, dict | BaseModel) for pool in value.values()))


def is_split(value: Any) -> bool:
    """Whether a test is a part of the target: it says which, and no path."""
    keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, BaseModel) else {}
    return "path" not in keys and not {"split_off", "fold", "folds"}.isdisjoint(keys)


def conflicts(tree: dict[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    """Pairs of settings that cannot go together, as (key path, what is wrong).

    Args:
        tree: A recipe as a nested mapping; it need not be valid, so that these mistakes are told with all others.
    """

    def get(section: str, key: str, default: Any) -> Any:
        part = tree.get(section)
        value = part.get(key) if isinstance(part, dict) else None
        return default if value is None else value

    if get("data", "source", None) in ([], ()):
        yield ("data", "source"), "data.source is an empty list, give at least one pool"
    yield from _conflicts_of_targets(get("data", "target", None), get("data", "test", None))
    yield from _conflicts_of_splits(get("data", "target", None), get("data", "test", None))
    yield from _conflicts_of_unlabelled(get("data", "unlabelled", None), tree.get("data"))
    yield from conflicts_of_task(tree, _pools_in)
    trains = _number(get("training", "epochs", 1)) != 0
    yield from _conflicts_of_labels(tree.get("data"), trains)
    if trains:
        yield from _conflicts_of_training_apart(tree, get)
    training = tree.get("training")
    given = [key for key in LENGTHS if get("training", key, None) is not None]
    if isinstance(training, dict) and len(given) != 1:
        found = " and ".join(given) if given else "none of them"
        yield ("training", "epochs"), f"give one of training.epochs, training.steps and training.minutes, found {found}"
    if given == ["epochs"] and _number(get("training", "epochs", 1)) == 0:
        yield from _conflicts_without_training(
            get("rates", "method", "hierarchical"), get("evaluation", "baselines", ())
        )
    parts, batch = _number(get("training", "accumulate", 1)), _number(get("training", "batch_size", 32))
    if parts > batch:
        yield (
            ("training", "accumulate"),
            f"training.accumulate ({parts:g}) is larger than training.batch_size ({batch:g})",
        )
    if get("training", "ema", None) is not None and _number(get("training", "average_last", 0)) > 0:
        yield (
            ("training", "average_last"),
            "training.average_last and training.ema are two averages of the same weights; give one of them",
        )
    if get("training", "batch_norm", "frozen") == "train" and _number(get("training", "branches", 1)) > 1:
        yield (
            ("training", "branches"),
            "training.branches cannot go with training.batch_norm: train, statistics of different weights have no"
            " useful mean; set training.batch_norm: frozen or training.branches: 1",
        )
    method, baselines = get("rates", "method", "hierarchical"), get("evaluation", "baselines", ())
    methods = [method, *(baselines if isinstance(baselines, list | tuple) else ())]
    mixes = _number(get("training", "mixup", 0)) > 0
    if mixes and method != "uniform":
        yield (
            ("training", "mixup"),
            f"training.mixup cannot go with rates.method: {method}, a mixed image has two owners, so no rate"
            " could be learned for either; set training.mixup: 0 or rates.method: uniform",
        )
    if mixes and get("model", "trainable", "all") == "head":
        yield (
            ("training", "mixup"),
            "training.mixup cannot go with model.trainable: head, which trains on features",
        )
    guided = ["rates.residuals"] if get("rates", "residuals", False) else []
    guided += [f"rates.method: {name}" for name in online_methods() if name == method]
    guided += [f"{name} among evaluation.baselines" for name in online_methods() if name in methods[1:]]
    if mixes and method == "uniform" and guided:
        yield (
            ("evaluation", "baselines"),
            f"{guided[0]} cannot go with training.mixup, a mixed image has two owners; set training.mixup: 0",
        )
    if get("training", "batch_norm", "frozen") == "train" and guided:
        yield (
            ("training", "batch_norm"),
            f"training.batch_norm: train cannot go with {guided[0]}, batch statistics mix the samples, so no gradient"
            " belongs to one of them; set training.batch_norm: frozen or adapt",
        )
    if "probe" in methods and get("model", "head_init", "probe") == "random":
        yield (
            ("rates", "method") if method == "probe" else ("evaluation", "baselines"),
            "the probe needs model.head_init: probe, it is what fine-tuning starts from",
        )
    if "oracle" in methods and get("data", "truth", None) is None:
        where = ("rates", "method") if method == "oracle" else ("evaluation", "baselines")
        yield where, f"the oracle in {'.'.join(where)} needs data.truth, the columns of the source that hold the truth"


def _conflicts_of_labels(data: Any, trains: bool) -> Iterator[tuple[tuple[str, str], str]]:
    found = {
        role: _label_kinds(data.get(role)) if isinstance(data, dict) else set() for role in ("source", "target", "test")
    }
    if len(found["source"]) > 1:
        yield (
            ("data", "source"),
            f"data.source: pools with labels {' and '.join(sorted(found['source']))} cannot be joined",
        )
    for role in ("target", "test"):
        if "other" in found[role]:
            yield ("data", role), f"data.{role}.labels: other is for the source; give shared or none"
    if "none" in found["test"]:
        yield ("data", "test"), "data.test.labels: none: a test without labels tests nothing; leave it out"
    if trains and "none" in found["source"]:
        yield (
            ("data", "source"),
            "data.source.labels: none gives rates, and no model can be trained by it; set training.epochs: 0",
        )


def _conflicts_of_training_apart(
    tree: dict[str, Any], get: Callable[[str, str, Any], Any]
) -> Iterator[tuple[tuple[str, str], str]]:
    """What cannot be done in a training where source and target share no labels."""
    kinds = {role: _label_kinds(get("data", role, None)) for role in ("source", "target")}
    if "none" in kinds["target"]:
        why = "data.target.labels: none"
        allowed = [name for name, method in METHODS.items() if method.takes_unlabelled]
    elif "other" in kinds["source"]:
        why = "data.source.labels: other"
        if _number(get("training", "target_weight", 1)) == 0:
            yield (
                ("training", "target_weight"),
                f"training.target_weight: 0 cannot go with {why}, no other image is of the target's classes; give more,"
                " or leave it out",
            )
        allowed = [name for name, method in METHODS.items() if method.takes_other]
    else:
        return
    given = get("evaluation", "baselines", ())
    baselines = given if isinstance(given, list | tuple) else []
    asked = [(("rates", "method"), get("rates", "method", "hierarchical")), *((_BASELINES, name) for name in baselines)]
    for where, name in asked:
        if name not in allowed:
            yield where, f"{'.'.join(where)}: {name} cannot go with {why}; possible are {', '.join(allowed)}"
    if baselines and "none" in kinds["target"] and get("data", "test", None) is None:
        yield _BASELINES, f"evaluation.baselines cannot be measured with {why}; give a labelled data.test"
    if get("rates", "residuals", False):
        yield ("rates", "residuals"), f"rates.residuals compares labels of source and target, and cannot go with {why}"


def _label_kinds(value: Any) -> set[str]:
    """Kinds of labels that a role's pools say they have."""
    return {str(pool.get("labels", "shared")) for pool in _pools_in(value) if isinstance(pool, dict)}


def _pools_in(value: Any) -> list[Any]:
    """The pools that a role names: one, a list, or several by name."""
    if isinstance(value, list | tuple):
        return list(value)
    return [value] if is_one_pool(value) else list(value.values())


def _conflicts_of_targets(target: Any, test: Any) -> Iterator[tuple[tuple[str, str], str]]:
    if is_one_pool(target):
        if test is not None and not is_one_pool(test):
            yield ("data", "test"), "data.test names several pools, data.target is one; give one test, or name targets"
    elif is_split(test):
        return
    elif test is not None and is_one_pool(test):
        yield (
            ("data", "test"),
            f"data.test is one pool, data.target names several; give tests by the names {', '.join(target)}",
        )
    elif test is not None and (unknown := set(test) - set(target)):
        yield (
            ("data", "test"),
            f"data.test.{min(unknown)}: there is no target of that name; there are {', '.join(target)}",
        )


def _conflicts_of_splits(target: Any, test: Any) -> Iterator[tuple[tuple[str, str], str]]:
    """A part of the target as the test."""
    where = ("data", "test")
    for split in filter(is_split, [test] if is_one_pool(test) else test.values()):
        part = split if isinstance(split, dict) else split.model_dump()
        fold, folds = part.get("fold"), part.get("folds", 5)
        if (fold is None) == (part.get("split_off") is None):
            yield (
                where,
                "data.test: give either split_off (a share of the target's images) or fold (one of equal parts)",
            )
        elif fold is not None and _number(fold) > _number(folds):
            yield where, f"data.test.fold: {fold} is more than the {folds} folds; allowed are 1 to {folds}"
        if "none" in _label_kinds(target):
            yield (
                where,
                "data.test cannot be a part of a target without labels, it would test nothing; leave it out, or give"
                " the path of labelled images",
            )


def _conflicts_of_unlabelled(unlabelled: Any, data: Any) -> Iterator[tuple[tuple[str, str], str]]:
    """Labels can be guessed where source and target have them in common."""
    if unlabelled is None or not isinstance(data, dict):
        return
    where = ("data", "unlabelled")
    target: Any = data.get("target")
    if not is_one_pool(unlabelled):
        if is_one_pool(target):
            yield where, "data.unlabelled names several pools, data.target is one; give one pool, or name targets"
        elif unknown := set(unlabelled) - set(target):
            yield (
                where,
                f"data.unlabelled.{min(unknown)}: there is no target of that name; there are {', '.join(target)}",
            )
    if "none" in _label_kinds(target):
        yield (
            where,
            "data.unlabelled cannot go with data.target.labels: none, guesses are calibrated on a labelled target; give"
            " all these images as data.target, or label some",
        )
    elif kinds := _label_kinds(data.get("source")) - {"shared"}:
        yield (
            where,
            f"data.unlabelled cannot go with data.source.labels: {min(kinds)}, guesses are learned from a source"
            " that is labelled with the target's classes; leave it out",
        )


def _conflicts_without_training(method: Any, baselines: Any) -> Iterator[tuple[tuple[str, str], str]]:
    if method != "hierarchical":
        yield (
            ("rates", "method"),
            f"rates.method: {method} learns no rates before training; with training.epochs: 0 set rates.method:"
            " hierarchical",
        )
    if baselines:
        yield (
            ("evaluation", "baselines"),
            "evaluation.baselines are trained, and with training.epochs: 0 nothing is; leave them out",
        )


def _number(value: Any) -> float:
    """A setting as a number, also where YAML read it as text (1e-4); not a number where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
