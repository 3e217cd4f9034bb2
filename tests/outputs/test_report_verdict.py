"""Whether it was worth it: by intervals, never by the oracle."""

import pytest

from homing.outputs.report.verdict import reference, scores, verdict
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
