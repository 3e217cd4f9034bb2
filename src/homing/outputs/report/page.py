"""The report: one HTML file that shows what a run did, how well, and why. No network, no server."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from homing.errors import DataError, RecipeError
from homing.measures import MEASURES
from homing.outputs import titles
from homing.outputs.artefact import write_json, write_whole
from homing.outputs.lock import folder_lock
from homing.outputs.ownership import is_our_report
from homing.outputs.report.axis import Axis, axis_around, axis_of
from homing.outputs.report.certainty import certainty
from homing.outputs.report.columns import RateColumns
from homing.outputs.report.curves import constant_size, curves
from homing.outputs.report.data import RunFolder, mapping, number, read_run
from homing.outputs.report.figures import Picture, histogram, lift_figure
from homing.outputs.report.keeping import shipped_line
from homing.outputs.report.own import own_galleries
from homing.outputs.report.pictures import Pictures, Shown, choose, doubtful_rows, galleries
from homing.outputs.report.plane import density_figure, map_figures, scatter_of
from homing.outputs.report.rates import density, group_table, lift_curve, ranked_rows, summarize
from homing.outputs.report.tables import (
    class_figure,
    class_scores,
    confusion,
    cost,
    duration,
    flatten,
    judged,
    phi_rows,
    show,
)
from homing.outputs.report.unlabelled import unlabelled
from homing.outputs.report.verdict import columns_of, reference, scores, verdict
from homing.outputs.run_kinds import results_of

if TYPE_CHECKING:
    import jinja2

NOT_WRITTEN = "report.html could not be written"
"""So begins the warning in the results of a run whose report failed."""
_ROLES = ("source", "target", "test", "unlabelled")
_NO_FIGURE = {
    "none": "Rates only: nothing was trained, so nothing was measured",
    "unmeasured": "Nothing was measured: no image of the target's domain has a label",
}


def write_report(run: Path, shown: Pictures | Shown, *, results: dict[str, Any] | None = None) -> Path:
    """Write `report.html` into a run folder, out of what lies in that folder alone.

    Args:
        run: Folder that `homing run` wrote.
        shown: Gives the encoded picture of each sample id, None where it is gone, and texts where there are some.
            Asked once, for at most a few hundred ids.
        results: The content of `results.json`, where that is yet to be written.

    Returns:
        Path of the report.

    Raises:
        DataError: If the run folder is incomplete or unreadable, or a page that is not ours stands in the way.
    """
    path = run / "report.html"
    if path.exists() and not is_our_report(path):
        raise DataError(f"{path}: was not written by homing, which would replace it; move it away first")
    shown = shown if isinstance(shown, Shown) else Shown(shown)
    page = environment().get_template("report.html.j2").render(_context(read_run(run, results), shown))
    write_whole(path, page.encode("utf-8", errors="xmlcharrefreplace"))
    if results is None:
        _forget_failure(run)
    return path


def _forget_failure(run: Path) -> None:
    """A report that is there now was not written at first, as `results.json` may say; who is at work there knows."""
    with suppress(RecipeError), folder_lock() as lock:
        lock.take(run)
        results = results_of(run)
        given = results.get("warnings", [])
        kept = [text for text in given if not str(text).startswith(NOT_WRITTEN)]
        if len(kept) < len(given):
            write_json(run / "results.json", {**results, "warnings": kept})


@functools.cache
def environment() -> jinja2.Environment:
    """The templates, with what writes values in them; compiled once a process."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "share": _share,
        "rate": _rate,
        "thousands": _thousands,
        "decimals": _decimals,
        "written": _written,
        "duration": duration,
        "prose": _prose,
        "show": show,
        "phi_title": titles.phi_title,
        "is_numeric": _is_numeric,
    }
    return environment


def _percent(value: Any) -> str:
    """Write a share as a percentage with one digit."""
    found = number(value)
    return "–" if found is None else f"{100 * found:.1f} %"


def _share(value: float) -> str:
    """Write a share as a percentage with as many digits as it needs."""
    return f"{100 * value:.0f} %" if value >= 0.1 or value == 0 else f"{100 * value:.2g} %"


def _rate(value: float) -> str:
    """Write a rate in few characters."""
    if 0 < value < 0.001:
        return "< 0.001"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.01 or value == 0 else f"{value:.1g}"


def _thousands(value: Any) -> str:
    found = number(value)
    return "–" if found is None else f"{found:,.0f}"


def _decimals(value: Any) -> str:
    found = number(value)
    return "–" if found is None else f"{found:.3f}"


def _written(value: Any, write: Callable[[float], str]) -> str:
    found = number(value)
    return "–" if found is None else write(found)


def _is_numeric(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _context(run: RunFolder, shown: Shown) -> dict[str, Any]:
    """Everything the template shows, by name."""
    return {
        **assets(),
        **_headline(run),
        **_rate_numbers(run),
        **_galleries(run, shown),
        **_rate_model(run),
        "unlabelled": unlabelled(run.results),
        **_run_itself(run),
        "curves": curves(run.metrics, str(run.results.get("method", "")), [row.name for row in scores(run.results)]),
        "constant_size": constant_size(run.metrics, str(run.results.get("method", ""))),
        "rejection": certainty(run.results),
        "own_galleries": own_galleries(run.results, shown),
        "class_scores": class_scores(run.results),
        "class_figure": class_figure(run.results),
        "class_against": _class_against(run.results),
        "absent_classes": [str(name) for name in run.results.get("classes_without_images") or []],
        "confusion": confusion(run.results),
        "unit_axis": Axis(0.0, 1.0),
    }


def _class_against(results: dict[str, Any]) -> str:
    """The method that the gains of classes are over, within a sentence; empty where there are none."""
    name = results.get("per_class_against")
    return titles.title_of(str(name)).lower() if name else ""


def assets() -> dict[str, Any]:
    """Style and script as they stand in the page, the script with the hash that its policy allows."""
    from markupsafe import Markup

    folder = Path(__file__).parent / "templates"
    script = (folder / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    style = (folder / "report.css").read_text(encoding="utf-8")
    return {"style": Markup(style), "script": Markup(script), "script_hash": digest}


def _headline(run: RunFolder) -> dict[str, Any]:
    """What was asked, what came out, and whether it was worth it."""
    rows = scores(run.results)
    measure = rows[0].measure if rows else MEASURES["accuracy"]
    data = mapping(run.results.get("data"))
    classes = data.get("classes")
    present = {key for row in rows for key, value in row.values.items() if number(value) is not None}
    return {
        "name": str(run.recipe.get("name") or run.name),
        "scores": rows,
        "measure": measure,
        "score_axis": axis_of([end for row in rows for end in (row.low, row.value, row.high)], measure),
        "score_columns": columns_of(present, measure),
        "own": next((row for row in rows if row.is_run), None),
        "reference": reference(rows),
        "verdict": verdict(rows, mapping(run.results.get("models"))),
        "shipped": shipped_line(run.results),
        "method_title": titles.title_of(str(run.results.get("method", "–"))),
        "num_test": number(mapping(run.results.get("target")).get("num_test")),
        "num_target": number(mapping(data.get("target")).get("num_samples")),
        "num_classes": len(classes) if isinstance(classes, list) else None,
        "no_figure": _NO_FIGURE.get(str(run.results.get("headline")), ""),
        "is_labelled": mapping(mapping(run.recipe.get("data")).get("target")).get("labels") != "none",
        "has_classes": not isinstance(classes, list) or len(classes) > 1,
        "is_cross_validated": run.results.get("headline") == "cross_validated",
        "backbone": str(mapping(run.recipe.get("model")).get("backbone") or ""),
        "warnings": _warnings(run),
    }


def _prose(text: str) -> str:
    """A sentence of ours as HTML: `names` of keys and files as code, a number and its % on one line."""
    from markupsafe import Markup, escape

    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(safe.replace(" %", "\u00a0%"))  # escaped above


def _warnings(run: RunFolder) -> list[str]:
    given = run.results.get("warnings")
    found = [str(warning) for warning in given] if isinstance(given, list) else []
    found = [warning for warning in found if not warning.startswith(NOT_WRITTEN)]
    if run.rates.num_dropped:
        found.append(
            f"{run.rates.num_dropped:,} source images could not be read or have no finite rate, and are left out of"
            " this report."
        )
    return found


def _rate_numbers(run: RunFolder) -> dict[str, Any]:
    """The rates in numbers, charts and tables."""
    rates = run.rates
    summary = summarize(rates.rate)
    columns = [("class", rates.label), ("source", rates.source), *rates.groups.items()]
    lifts = [
        curve
        for name, values in rates.descriptors.items()
        if (curve := lift_curve(name, values, rates.rate)) is not None
    ]
    lifts = [] if summary.is_uniform else lifts
    drawn = [
        lift_figure(f"lift-{curve.name}", curve, titles.DESCRIPTORS[curve.name], is_small=len(lifts) == 2)
        for curve in lifts
    ]
    return {
        "summary": summary,
        "spread": [histogram("histogram", rates.rate, summary, is_small=len(lifts) == 2), *drawn],
        "groups": [group_table(title, column, rates.rate) for title, column in columns if len(column.names) > 1],
        "planes": [*_descriptor_plane(rates), *map_figures(run.places)],
    }


def _descriptor_plane(rates: RateColumns) -> list[Picture]:
    """Likeness against consistency: dots where there are few images, bins where there are many."""
    names = ("target_likeness", "label_consistency")
    if not set(names) <= set(rates.descriptors):
        return []
    x, y = (rates.descriptors[name] for name in names)
    if dots := scatter_of(*names, x, y, rates.rate, titles.DESCRIPTORS):
        return [dots]
    binned = density(rates, *names)
    return [density_figure("density", binned, titles.DESCRIPTORS)] if binned else []


def _galleries(run: RunFolder, shown: Shown) -> dict[str, Any]:
    """The samples rated highest and lowest, and those with doubtful labels."""
    rates = run.rates
    ranked = ranked_rows(rates.rate)
    doubtful = doubtful_rows(rates)
    choices = (
        choose("highest", "Highest rated", ranked[::-1], rates),
        choose("lowest", "Lowest rated", ranked, rates),
        choose("doubtful", "Probably wrong labels", doubtful, rates),
    )
    found = galleries(choices, rates, shown)
    return {
        "galleries": found,
        "gallery_classes": sorted({name for gallery in found for name in gallery.classes}),
        "things": "images" if shown.pictures is not None else "samples",
        "has_pictures": shown.pictures is not None,
        "any_picture": any(tile.picture for gallery in found for tile in gallery.tiles),
        "num_doubtful": None if rates.suggested is None else len(doubtful),
    }


def _rate_model(run: RunFolder) -> dict[str, Any]:
    """φ and the settings that it was chosen from."""
    settings = judged(run.results)
    ends = [end for row in settings.rows for end in (row.low, row.loss, row.high)] if settings else []
    return {
        "phi": phi_rows(run.results),
        "judged": settings,
        "judged_axis": axis_around(ends, 0.01),
    }


def _run_itself(run: RunFolder) -> dict[str, Any]:
    """What it cost and how to run it again."""
    results = run.results
    data = mapping(results.get("data"))
    facts = [(key, results.get(key)) for key in ("version", "seed", "recipe_sha256")]
    facts.insert(1, ("method", titles.title_of(str(results["method"])) if results.get("method") else None))
    facts += [(f"{role}_digest", mapping(data.get(role)).get("digest")) for role in _ROLES]
    seconds = number(mapping(results.get("cost")).get("seconds"))
    return {
        "facts": [(name.replace("_", " "), show(value)) for name, value in facts if value is not None],
        "cost": cost(results),
        "run_time": None if seconds is None else duration(seconds),
        "recipe_text": run.recipe_text,
        "versions": {name: show(value) for name, value in flatten(mapping(results.get("versions"))).items()},
    }
