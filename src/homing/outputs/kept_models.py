"""`models/<method>/`: what every method of a run trained, as far as there is room; `model/` is one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from homing.errors import RecipeError
from homing.methods import METHODS
from homing.outputs.artefact import write_whole
from homing.outputs.model_card import model_card
from homing.outputs.model_folder import PARTS, link_model, save_model
from homing.outputs.run_kinds import lost, results_of

if TYPE_CHECKING:
    from torch import nn

    from homing.outputs.facts import Asked, RunFacts

MODEL, MODELS = "model", "models"
LEFT_OUT = "Models that were not kept:"


def keep_models(
    facts: RunFacts, trained: Mapping[str, nn.Module], results: dict[str, Any], *, most_gb: float
) -> dict[str, Any]:
    """Write the models of methods that were just trained, and make `model/` the one that the run ships.

    Args:
        facts: Of the run.
        trained: Method → model, the run's own first.
        results: The content of `results.json`; under `models` it says which method is shipped, and what an earlier
            attempt kept.
        most_gb: What all of them may take, GB; the run's own and the one that is shipped are kept in any case.

    Returns:
        What `results.json` says of it: shipped, kept and left_out.
    """
    own, shipped = results["method"], results["models"]["shipped"]
    _keep_own(facts.folder, own)  # of a run that began before there was `models/`
    there = [name for name in methods_there(facts.folder) if name not in trained]
    room = most_gb * 1e9 - sum((facts.folder / MODELS / name / PARTS[1]).stat().st_size for name in there)
    kept = list(there)
    for name, model in sorted(trained.items(), key=lambda item: item[0] not in (own, shipped)):
        size = sum(tensor.nbytes for tensor in model.state_dict().values())
        if name in (own, shipped) or size <= room:
            room -= size
            kept.append(name)
            _save(facts, name, model, results)
    link_model(facts.folder / MODELS / shipped, facts.folder / MODEL, card_of(results, facts.asked, shipped))
    for name in there:  # what they are held against has changed
        card = card_of(results, facts.asked, name, place=f"{MODELS}/{name}")
        write_whole(facts.folder / MODELS / name / "README.md", card.encode())
    names = [own, *results["baselines"]]
    return {
        "shipped": shipped,
        "kept": [name for name in names if name in kept],
        "left_out": [name for name in names if name not in kept],
    }


def left_out_warnings(run: Path, models: Mapping[str, Any], *, most_gb: float) -> list[str]:
    """What to say of models that are not there: all of a run are of one size, so one more fits or it does not.

    Args:
        run: Its folder.
        models: What `keep_models` returned.
        most_gb: What it was given.
    """
    if not models["left_out"]:
        return []
    sizes = [(run / MODELS / name / PARTS[1]).stat().st_size for name in models["kept"]]
    no_room = sum(sizes) + max(sizes) > most_gb * 1e9
    reason = f"there was no room (output.models_gb is {most_gb:g})" if no_room else "an earlier version trained them"
    return [f"{LEFT_OUT} {', '.join(models['left_out'])}; {reason}."]


def card_of(
    results: dict[str, Any],
    asked: Asked,
    method: str | None,
    *,
    place: str = MODEL,
    form: str = "timm",
    licence: str | None = None,
) -> str:
    """The card of the model that a method of the run trained; None: of the one that is shipped."""
    name = method or shipped_of(results)
    return model_card(_as_seen_by(results, name), replace(asked, method=name), place=place, form=form, licence=licence)


def shipped_of(results: Mapping[str, Any]) -> str:
    """The method that trained `model/`; before there was a choice, the run's own."""
    return str((results.get("models") or {}).get("shipped") or results["method"])


def methods_there(run: Path) -> list[str]:
    """Methods whose models lie in a run's `models/`, by name."""
    return sorted(name for name in METHODS if all((run / MODELS / name / part).is_file() for part in PARTS))


def model_of(run: Path, method: str | None) -> Path:
    """Folder of the model that a method of a finished run trained.

    Args:
        run: Its folder.
        method: Name of the method; None: whichever the run ships.

    Raises:
        RecipeError: There is none of that method; says which there are.
        DataError: The run is complete, and its model is gone.
    """
    if method is None:
        for part in PARTS:
            if (run / "results.json").is_file() and not (run / MODEL / part).is_file():
                raise lost(run / MODEL / part, run)
        return run / MODEL
    results = results_of(run)
    kept = {name: run / MODELS / name for name in methods_there(run)}
    if "method" in results:
        kept.setdefault(shipped_of(results), run / MODEL)
    if method not in kept:
        there = f"--method takes {', '.join(sorted(kept))}" if kept else "give the folder of a run that trained some"
        raise RecipeError(f"{run}: no model of {method!r} is kept here; {there}")
    return kept[method]


def _save(facts: RunFacts, name: str, model: nn.Module, results: dict[str, Any]) -> None:
    import torch

    fitted = results.get("calibration", {}) if name == results["method"] else {}  # of the run's own method alone
    save_model(
        facts.folder / MODELS / name,
        model.cpu().to(memory_format=torch.contiguous_format),
        classes=facts.problem.classes,
        model_args=facts.model_args,
        data_config=facts.preprocessing.data_config(),
        temperature=fitted.get("temperature"),
        is_multi_label=facts.problem.label_sets is not None,
        card=card_of(results, facts.asked, name, place=f"{MODELS}/{name}"),
    )


def _keep_own(folder: Path, own: str) -> None:
    if not (folder / MODELS).exists() and all((folder / MODEL / part).is_file() for part in PARTS):
        link_model(folder / MODEL, folder / MODELS / own, (folder / MODEL / "README.md").read_text(encoding="utf-8"))


def _as_seen_by(results: dict[str, Any], name: str) -> dict[str, Any]:
    """The results of a run as if this method were its own."""
    own = results["method"]
    if name == own or name not in results["baselines"]:
        return results
    others = {other: row for other, row in results["baselines"].items() if other != name}
    return {
        **results,
        "method": name,
        "target": results["baselines"][name],
        "baselines": {own: results["target"], **others},
    }
