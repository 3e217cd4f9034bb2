"""A run from a recipe to its folder, with real pictures and files."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from homing.errors import CheckpointError, DataError, DivergedError, RecipeError
from homing.flow import run
from homing.recipe.reading import read_recipe
from small_run import draw_problem, small_recipe


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return draw_problem(tmp_path_factory.mktemp("pools"))


@pytest.fixture(scope="module")
def finished(problem, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    baselines = "[target_only, pooled, pooled_oversampled, source_only, sequential, density_ratio]"
    return run(small_recipe(problem, f"evaluation.baselines={baselines}"), folder, quiet=True)


def test_the_run_folder_holds_what_the_contract_says(finished):
    folder = finished.folder
    names = {"recipe.yaml", "results.json", "metrics.jsonl", "rates.parquet", "model", "report.html", "checkpoints"}
    assert names <= {path.name for path in folder.iterdir()}
    assert [path.name for path in (folder / "checkpoints").iterdir()] != []
    results = json.loads((folder / "results.json").read_text())
    assert results == json.loads(json.dumps(finished.results))
    assert {"version", "recipe_sha256", "method", "seed", "target", "rates", "cost", "baselines", "warnings"} <= set(
        results
    )
    keys = {"accuracy", "macro_f1", "nll", "ece", "num_test"}
    for row in (results["target"], *results["baselines"].values()):
        assert keys <= set(row)
        assert row["num_test"] == 18
    assert {"effective_sample_size", "phi"} <= set(results["rates"])
    assert {"seconds", "source_gradients", "peak_rss_mb"} <= set(results["cost"])
    assert len(results["baselines"]) == 6


def test_every_source_sample_has_one_rate_with_mean_one_in_its_class(finished):
    table = pq.read_table(finished.folder / "rates.parquet").to_pandas()
    columns = [
        "sample_id",
        "source",
        "label",
        "rate",
        "target_likeness",
        "label_consistency",
        "target_alignment",
        "visits",
    ]
    assert list(table.columns)[:8] == columns
    assert len(table) == 42
    assert table.sample_id.is_unique
    assert set(table.sample_id) == {f"{c}/{n:03d}.png" for c in ("bar", "disk", "ring") for n in range(14)}
    for mean in table.groupby("label").rate.mean():
        assert math.isclose(mean, 1, rel_tol=1e-4)
    assert table.visits.sum() == finished.results["cost"]["source_gradients"]


def test_the_model_opens_in_timm_and_gives_the_predictions_of_the_run(finished):
    model = timm.create_model(f"local-dir:{finished.folder / 'model'}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    recipe = read_recipe(finished.folder / "recipe.yaml")
    paths = sorted((p.relative_to(recipe.data.test.path).as_posix(), p) for p in _pngs(recipe.data.test.path))
    pictures = torch.stack([transform(Image.open(path).convert("RGB")) for _, path in paths])
    with torch.inference_mode():
        logits = model(pictures)
    saved = load_file(finished.folder / "predictions.safetensors")["hierarchical"]
    assert torch.allclose(logits, saved, atol=1e-4)
    assert model.pretrained_cfg["label_names"] == ["bar", "disk", "ring"]


def _pngs(folder):
    return Path(folder).rglob("*.png")


def test_the_written_recipe_gives_the_same_run_again(finished, tmp_path):
    recipe = read_recipe(finished.folder / "recipe.yaml")
    again = run(recipe, tmp_path / "again", quiet=True)
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (finished.folder, again.folder))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.results["target"] == finished.results["target"]


def test_the_report_is_one_page_with_the_headline(finished):
    page = (finished.folder / "report.html").read_text()
    assert f"{finished.results['target']['accuracy']:.1%}".replace("%", "") in page
    assert "<script src" not in page


METHODS, PARTS = ("hierarchical", "instance", "uniform"), ("all", "last_stage", "head")
EVERY_PAIR = [
    (method, ("sample", "weight")[(row + column) % 2], part)
    for row, method in enumerate(METHODS)
    for column, part in enumerate(PARTS)
]
"""Each method with each part, each of both with either way to apply rates."""


@pytest.mark.parametrize(("method", "apply", "trainable"), EVERY_PAIR)
def test_every_method_runs_with_every_part_trained(problem, tmp_path, method, apply, trainable):
    overrides = (f"rates.method={method}", f"rates.apply={apply}", f"model.trainable={trainable}", "training.steps=6")
    result = run(small_recipe(problem, *overrides), tmp_path / "run", quiet=True)
    rates = pq.read_table(result.folder / "rates.parquet").to_pandas().rate
    assert rates.between(0, 100).all()
    if method == "uniform":
        assert (rates == 1).all()


def test_residuals_go_on_moving_the_learned_rates(problem, tmp_path):
    tables = []
    for residuals in ("true", "false"):
        overrides = (f"rates.residuals={residuals}", "rates.observe_every=1", "rates.apply=weight", "training.steps=20")
        folder = run(small_recipe(problem, *overrides), tmp_path / residuals, quiet=True).folder
        tables.append(pq.read_table(folder / "rates.parquet").to_pandas())
    assert (tables[0].rate != tables[1].rate).any()
    assert tables[0].target_alignment.notna().all()
    assert tables[1].target_alignment.isna().all()


def test_frozen_parts_do_not_move(problem, tmp_path):
    torch.manual_seed(0)
    start = {}
    for trainable in ("last_stage", "head"):
        overrides = (f"model.trainable={trainable}", "rates.method=uniform", "training.learning_rate=0.01")
        folder = run(small_recipe(problem, *overrides), tmp_path / trainable, quiet=True).folder
        start[trainable] = load_file(folder / "model" / "model.safetensors")
    before = timm.create_model("test_resnet", num_classes=3)
    moved = {name for name in start["head"] if not torch.equal(start["head"][name], start["last_stage"][name])}
    assert moved
    assert all(name.startswith(("layer4", "fc")) for name in moved)
    assert set(start["head"]) == set(before.state_dict())


@pytest.mark.parametrize(
    ("method", "backbone", "apply", "trainable"),
    [
        ("hierarchical", "test_resnet", "sample", "all"),
        ("instance", "test_vit", "weight", "all"),
        ("instance", "test_efficientnet", "sample", "last_stage"),
    ],
)
def test_resuming_ends_where_the_uninterrupted_run_does_bit_for_bit(
    problem, tmp_path, method, backbone, apply, trainable
):
    recipe = small_recipe(
        problem,
        f"rates.method={method}",
        f"rates.apply={apply}",
        f"model.backbone={backbone}",
        f"model.trainable={trainable}",
        "rates.observe_every=2",
        "training.steps=20",  # over several epochs
        "output.checkpoint_every=3",
        "output.keep=9",
    )
    whole = run(recipe, tmp_path / "whole", quiet=True).folder
    for cut in (3, 18):  # every kind of cut: training/test_resume.py
        folder = tmp_path / f"cut-{cut}"
        shutil.copytree(whole, folder)
        for name in ("results.json", "rates.parquet", "report.html", "predictions.safetensors"):
            (folder / name).unlink()
        shutil.rmtree(folder / "model")
        for path in (folder / "checkpoints").glob("step-*"):
            if int(path.name.removeprefix("step-")) > cut:
                shutil.rmtree(path)
        run(recipe, folder, resume=True, quiet=True)
        _assert_same_run(whole, folder)


def _assert_same_run(one, other):
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    tables = [pq.read_table(folder / "rates.parquet").to_pandas() for folder in (one, other)]
    pandas.testing.assert_frame_equal(*tables, check_exact=True)
    rows = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (one, other)
    ]
    for table in rows:
        for row in table:
            del row["seconds"]
    assert rows[0] == rows[1]


def test_without_a_test_pool_the_headline_is_cross_validated_and_says_so(problem, tmp_path):
    recipe = small_recipe(problem, "data.test=null", "evaluation.folds=2", "training.steps=3")
    results = run(recipe, tmp_path / "run", quiet=True).results
    assert results["headline"] == "cross_validated"
    assert results["calibration"]["nll"] > 0
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config.get("temperature") == results["calibration"]["temperature"]
    assert results["target"]["num_test"] == 12
    assert any("cross-validated" in text for text in results["warnings"])


def test_a_fold_of_one_image_is_judged_like_any_other(problem, tmp_path):
    """Five folds of six target images: four of them hold a single one."""
    pools = ("data.test=null", "data.target.limit=6", "evaluation.folds=5")
    overrides = (*pools, "training.steps=1", "rates.method=uniform", "model.trainable=head")
    results = run(small_recipe(problem, *overrides), tmp_path / "run", quiet=True).results
    assert results["target"]["num_test"] == 6
    assert 0 <= results["target"]["accuracy"] <= 1
    assert sum(map(sum, results["confusion"])) == 6


def test_the_oracle_uses_the_truth_that_the_source_holds(problem, tmp_path):
    rows = ["file_name,label,matches,clean"]
    for shape in ("bar", "disk", "ring"):
        rows += [f"{shape}/{n:03d}.png,{shape},{int(n < 3)},{int(n != 5)}" for n in range(14)]
    shutil.copytree(problem, tmp_path / "pools")
    (tmp_path / "pools" / "source" / "metadata.csv").write_text("\n".join(rows))
    recipe = small_recipe(tmp_path / "pools", "data.truth={}", "evaluation.baselines=[oracle]", "training.steps=3")
    assert "oracle" in run(recipe, tmp_path / "run", quiet=True).results["baselines"]


def test_a_corrupt_image_stops_the_run_and_is_named(problem, tmp_path):
    shutil.copytree(problem, tmp_path / "pools")
    (tmp_path / "pools" / "source" / "disk" / "003.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"source disk/003\.png"):
        run(small_recipe(tmp_path / "pools"), tmp_path / "run", quiet=True)
    dropped = run(
        small_recipe(tmp_path / "pools", "data.on_bad_image=drop", "training.steps=3"), tmp_path / "other", quiet=True
    )
    table = pq.read_table(dropped.folder / "rates.parquet").to_pandas().set_index("sample_id")
    assert len(table) == 42
    assert table.rate["disk/003.png"] == 0
    assert table.visits["disk/003.png"] == 0
    assert [item["image"] for item in dropped.results["dropped"]] == ["source disk/003.png"]
    assert any("could not be read" in text for text in dropped.results["warnings"])
    assert "disk/003.png" not in (dropped.folder / "report.html").read_text()


def test_rows_of_a_table_whose_image_is_null_or_lost_are_dropped_by_their_number(problem, tmp_path):
    """Such a row has no bytes to be known by, and no id column gives it a name."""
    paths = sorted((problem / "source").rglob("*.png"))
    images = [{"bytes": path.read_bytes(), "path": None} for path in paths]
    images[2], images[5] = None, {"bytes": None, "path": "lost/x.png"}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": pa.array(images, kind), "label": [path.parent.name for path in paths]}
    pq.write_table(pa.table(columns), tmp_path / "source.parquet")
    asked = (f"data.source.path={tmp_path / 'source.parquet'}", "training.epochs=0", "training.steps=null")
    with pytest.raises(DataError, match="source row-2: the table holds no image in this row"):
        run(small_recipe(problem, *asked), tmp_path / "refused", quiet=True)
    done = run(small_recipe(problem, *asked, "data.on_bad_image=drop"), tmp_path / "run", quiet=True)
    assert [item["image"] for item in done.results["dropped"]] == ["source row-2", "source row-5"]
    rates = pq.read_table(done.folder / "rates.parquet").to_pandas().set_index("sample_id").rate
    assert (rates[["row-2", "row-5"]] == 0).all()
    assert (rates.drop(["row-2", "row-5"]) > 0).all()


def test_a_folder_with_a_run_in_it_is_refused(finished, problem):
    before = (finished.folder / "results.json").read_bytes()
    with pytest.raises(RecipeError, match="--resume"):
        run(small_recipe(problem), finished.folder, quiet=True)
    with pytest.raises(CheckpointError, match="another recipe"):
        run(small_recipe(problem, "seed=9"), finished.folder, resume=True, quiet=True)
    assert (finished.folder / "results.json").read_bytes() == before


def test_divergence_stops_the_run_and_names_step_and_samples(problem, tmp_path):
    recipe = small_recipe(problem, "training.learning_rate=1e30", "training.warmup=0", "training.optimizer=sgd")
    with pytest.raises(DivergedError, match=r"step \d+: .*png"):
        run(recipe, tmp_path / "run", quiet=True)
    told = json.loads((tmp_path / "run" / "divergence.json").read_text())
    assert told["step"] >= 1
    assert told["samples"]
    assert not (tmp_path / "run" / "results.json").exists()


def test_fewer_target_images_than_folds_is_told(problem, tmp_path):
    with pytest.raises(DataError, match="fewer than the 20 folds"):
        run(small_recipe(problem, "data.test=null", "evaluation.folds=20"), tmp_path / "run", quiet=True)
    with pytest.raises(DataError, match="fewer than the 13 folds"):
        run(small_recipe(problem, "rates.folds=13"), tmp_path / "other", quiet=True)


def test_pretrained_weights_without_a_network_name_the_other_ways(problem, tmp_path):
    with pytest.raises(DataError, match="bundled"):
        run(small_recipe(problem, "model.weights=pretrained"), tmp_path / "run", quiet=True)


def test_weights_come_from_a_file_or_a_model_folder(finished, problem, tmp_path):
    for path in (finished.folder / "model", finished.folder / "model" / "model.safetensors"):
        recipe = small_recipe(problem, f"model.weights={path}", "training.steps=1", "rates.method=uniform")
        run(recipe, tmp_path / path.name, quiet=True)
    wrong = small_recipe(problem, f"model.weights={finished.folder / 'model'}", "model.backbone=test_efficientnet")
    with pytest.raises(DataError, match="another backbone"):
        run(wrong, tmp_path / "wrong", quiet=True)
