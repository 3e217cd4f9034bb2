"""The comparison as a table for a terminal."""

from __future__ import annotations

from typing import Any

_TITLES = {
    "hierarchical": "homing",
    "instance": "homing, instance rates",
    "uniform": "uniform rates",
    "target_only": "target only",
    "source_only": "source only",
    "pooled_oversampled": "pooled, target oversampled",
    "sequential": "source, then target",
    "density_ratio": "density ratio",
    "oracle": "oracle (true rates)",
}


def results_table(results: dict[str, Any]) -> str:
    """One row a method, worst first, the run's own marked: accuracy, its 95 % interval, NLL."""
    own = results["method"]
    rows = {**results["baselines"], own: results["target"]}
    images = f"{results['target']['num_test']:,} " + (
        "test images" if results.get("headline") == "test" else "target images, cross-validated"
    )
    lines = [f"{'':2}{'method':28}{'accuracy':>9}   {'95 % interval':15}{'NLL':>7}   on {images}"]
    for name, row in sorted(rows.items(), key=lambda item: item[1]["accuracy"]):
        low, high = row["accuracy_interval"]
        mark = "→ " if name == own else "  "
        title = _TITLES.get(name, name)
        lines.append(f"{mark}{title:28}{row['accuracy']:9.1%}   [{low:.1%}, {high:.1%}] {row['nll']:7.3f}")
    return "\n".join(lines)
