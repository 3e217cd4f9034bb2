"""`results.json` that was edited or damaged, and files of a finished run that are gone: one sentence, and a way on."""

import json
import shutil

import pytest

from homing.compare import predictions_of
from homing.errors import DataError
from homing.flow import run
from homing.outputs.export import export_model
from homing.outputs.finished import read_results
from homing.outputs.kept_models import model_of
from homing.outputs.report.page import write_report
from homing.outputs.run_kinds import OF_ONE_TARGET, is_of_rows, results_of, targets_of
from homing.recipe.reading import recipe_of_run


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b"[]", "no JSON object"),
        (b'{"method": "uniform"}', "it lacks seed, target, rates, cost, baselines, warnings"),
        (b'{"baselines": null}', "it lacks"),
        (b'{"targets": 5}', "it lacks"),
    ],
)
def test_results_that_are_damaged_are_told_with_what_to_do(tmp_path, content, told):
    (tmp_path / "results.json").write_bytes(content)
    for read in (read_results, lambda folder: results_of(folder, OF_ONE_TARGET)):
        with pytest.raises(DataError, match=rf"is damaged \({told}.*remove it, and `homing run … --resume` writes it"):
            read(tmp_path)
    assert (targets_of(tmp_path), is_of_rows(tmp_path)) == ((), False)


def test_values_of_another_kind_end_no_verb(finished_run, tmp_path):
    run_folder = shutil.copytree(finished_run, tmp_path / "run")
    results = json.loads((run_folder / "results.json").read_text())
    for key in ("baselines", "warnings", "data", "dropped"):
        (run_folder / "results.json").write_text(json.dumps({**results, key: None}))
        with pytest.raises(DataError, match=rf"is damaged \({key} is null\)"):
            export_model(run_folder, "timm", tmp_path / "out")
        with pytest.raises(DataError, match=rf"is damaged \({key} is null\)"):
            run(recipe_of_run(run_folder), run_folder, resume=True, quiet=True)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        *[(("headline",), 5), (("models",), "x"), (("calibration",), 5), (("warnings",), [5])],
        *[(("rates", "phi"), []), (("rates", "effective_sample_size"), "x"), (("data", "source"), 5)],
    ],
)
def test_values_that_were_edited_into_others_are_told(finished_run, tmp_path, keys, value):
    results = json.loads((finished_run / "results.json").read_text())
    inner = results
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(DataError, match=rf"is damaged \({'.'.join(keys)} (is|are) "):
        read_results(tmp_path)


def test_a_file_of_a_finished_run_that_is_gone_is_named_with_what_makes_it_again(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    for name, use in (
        ("model", lambda: model_of(folder, None)),
        ("predictions.safetensors", lambda: predictions_of(folder)),
        ("rates.parquet", lambda: write_report(folder, lambda ids: [None] * len(ids))),
    ):
        shutil.rmtree(folder / name) if name == "model" else (folder / name).unlink()
        with pytest.raises(
            DataError, match=rf"{name}.*: no such file, though this run is complete; .* --resume` makes"
        ):
            use()
    (folder / "results.json").unlink()  # as it says
    assert run(recipe_of_run(folder), folder, resume=True, quiet=True).results["models"]["kept"]
    for name in ("model/model.safetensors", "predictions.safetensors"):
        assert (folder / name).read_bytes() == (finished_run / name).read_bytes()
