"""Whether it was worth it: by intervals, never by the oracle."""

import pytest

from homing.outputs.report.verdict import columns_of, reference, scores, verdict
from report_run import score


@pytest.mark.parametrize(
    ("own", "baselines", "title"),
    [
        (0.91, {"pooled_oversampled": 0.87}, "Worth it"),
        (0.885, {"pooled_oversampled": 0.88}, "Not proven"),
        (0.87, {"pooled_oversampled": 0.88}, "No gain shown"),
        (0.80, {"pooled_oversampled": 0.88}, "Not worth it"),
        (0.91, {"pooled_oversampled": 0.87, "target_only": 0.96}, "Not worth it"),
        (0.91, {"pooled_oversampled": 0.87, "target_only": 0.912}, "Better than pooling, but not the best"),
        (0.91, {"oracle": 0.95}, "Nothing to compare with"),
    ],
)
def test_the_verdict_goes_by_intervals_and_never_by_the_oracle(own, baselines, title):
    rows = scores({"target": score(own), "baselines": {name: score(value) for name, value in baselines.items()}})
    assert verdict(rows).title == title


def test_a_paired_gain_settles_what_two_separate_intervals_leave_open():
    paired = score(0.88) | {"ours_minus_this": {"mean": 0.012, "low": 0.004, "high": 0.02}}
    found = verdict(scores({"target": score(0.892), "baselines": {"pooled_oversampled": paired}}))
    assert found.title == "Worth it"
    assert "+1.2 points [+0.4, +2.0]" in found.text


def test_a_gain_without_any_interval_is_not_judged():
    target = {"accuracy": 0.9}
    found = verdict(scores({"target": target, "baselines": {"pooled": {"accuracy": 0.8}}}))
    assert found.title == "Cannot be judged"


def test_the_reference_is_the_oversampled_pool_even_where_another_scores_higher():
    baselines = {"target_only": score(0.9), "pooled": score(0.85), "pooled_oversampled": score(0.8)}
    assert reference(scores({"target": score(0.7), "baselines": baselines})).name == "pooled_oversampled"


def judged_by(metric: str, own: float, other: float, gap: tuple[float, float]) -> dict:
    """Results that another figure decides; accuracy says the opposite."""
    gains = {metric: {"mean": own - other, "low": gap[0], "high": gap[1]}}
    figures = {f"{metric}_interval": [0.0, 1.0]}
    return {
        "metric": metric,
        "target": score(0.8) | {metric: own} | figures,
        "baselines": {"pooled_oversampled": score(0.9) | {metric: other, "gains": gains} | figures},
    }


@pytest.mark.parametrize(
    ("metric", "own", "other", "gap", "title", "text"),
    [
        ("balanced_accuracy", 0.9, 0.8, (0.05, 0.15), "Worth it", "+10.0 points of balanced accuracy [+5.0, +15.0]"),
        ("macro_f1", 0.7, 0.8, (-0.15, -0.05), "Not worth it", "−0.100 macro F1 [−0.150, −0.050]"),
        ("nll", 0.3, 0.4, (-0.15, -0.05), "Worth it", "−0.100 NLL [−0.150, −0.050]"),
        ("nll", 0.4, 0.3, (0.05, 0.15), "Not worth it", "(less is better)"),
        ("nll", 0.3, 0.31, (-0.05, 0.02), "Not proven", "ahead"),
    ],
)
def test_the_metric_of_the_run_decides(metric, own, other, gap, title, text):
    found = judged_by(metric, own, other, gap)
    rows = scores(found)
    assert rows[0].is_run == ((own > other) != (metric == "nll"))  # best first
    assert verdict(rows).title == title
    assert text in verdict(rows).text


def test_a_metric_that_a_row_lacks_gives_way_to_accuracy():
    rows = scores({"metric": "auroc", "target": score(0.9) | {"auroc": None}, "baselines": {"pooled": score(0.8)}})
    assert [row.measure.key for row in rows] == ["accuracy", "accuracy"]


def test_the_columns_are_the_figures_that_are_there_without_the_headline():
    rows = scores(judged_by("nll", 0.3, 0.4, (-0.15, -0.05)))
    titles = [title for _, title, _ in columns_of(rows[0].values, rows[0].measure)]
    assert titles == ["Accuracy", "Macro F1", "Calibration error"]
