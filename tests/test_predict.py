"""`homing predict` and `homing evaluate` on the model of a finished run."""

import csv
import io
import json

import datasets
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from homing.cli.app import app
from homing.cli.models import _rows_to
from homing.errors import DataError
from homing.predict import evaluate, predict
from homing.progress import Progress
from homing.recipe.data import PoolSpec

QUIET = Progress(quiet=True)


def rows_of(run, *paths, form="csv"):
    file = io.StringIO()
    bad, total = predict(run, paths, file, form, QUIET)
    text = file.getvalue()
    rows = list(csv.DictReader(io.StringIO(text))) if form == "csv" else list(map(json.loads, text.splitlines()))
    assert len(rows) == total
    return rows, bad


def test_predictions_on_the_test_are_those_of_the_run(finished_run):
    rows, bad = rows_of(finished_run, finished_run.parent / "test")
    assert bad == []
    saved = load_file(finished_run / "predictions.safetensors")["hierarchical"].double().softmax(1)
    shares = np.array([[float(row[f"p({name})"]) for name in ("bar", "disk", "ring")] for row in rows])
    np.testing.assert_allclose(shares, saved.numpy(), atol=2e-6)  # six digits are written
    for row, share in zip(rows, shares, strict=True):
        assert row["predicted"] == ("bar", "disk", "ring")[share.argmax()]
        assert float(row["probability"]) == share.max()


def test_evaluation_on_the_test_gives_the_headline_of_the_run(finished_run):
    found = evaluate(finished_run, PoolSpec(path=str(finished_run.parent / "test")), QUIET)
    results = json.loads((finished_run / "results.json").read_text())
    for key, value in results["target"].items():
        assert found[key] == pytest.approx(value, abs=1e-6), key
    own = {name: {k: v for k, v in row.items() if k != "gain"} for name, row in results["per_class"].items()}
    assert found["per_class"] == own
    assert found["confusion"] == results["confusion"]
    assert found["data"]["digest"] == results["data"]["test"]["digest"]


def test_files_folders_and_tables_in_one_call_keep_their_order_and_names(finished_run, tmp_path):
    root = finished_run.parent / "test"
    bars = sorted((root / "bar").iterdir())
    pictures = [{"bytes": path.read_bytes(), "path": None} for path in bars]
    features = datasets.Features({"image": datasets.Image()})
    table = datasets.Dataset.from_dict({"image": pictures}, features=features)
    table.to_parquet(tmp_path / "bars.parquet")
    single = tmp_path / "a photo without suffix"
    single.write_bytes(bars[0].read_bytes())
    rows, _ = rows_of(finished_run, single, root / "bar", tmp_path / "bars.parquet", form="jsonl")
    names = [str(single), *map(str, bars), *(f"{tmp_path / 'bars.parquet'}:{row}" for row in range(len(bars)))]
    assert [row["image"] for row in rows] == names
    by_file = [row["probabilities"] for row in rows[1 : 1 + len(bars)]]
    assert [row["probabilities"] for row in rows[1 + len(bars) :]] == by_file
    assert rows[0]["probabilities"] == pytest.approx(by_file[0], abs=1e-5)
    assert sum(by_file[0].values()) == pytest.approx(1, abs=1e-5)


def test_tables_of_paths_are_predicted_and_evaluated(finished_run, tmp_path):
    root = finished_run.parent / "test"
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    lines = ["path,label,day", *(f"{file},{file.partition('/')[0]},{number % 2}" for number, file in enumerate(files))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    spec = PoolSpec(path=str(tmp_path / "t.csv"), root=str(root))
    assert (
        evaluate(finished_run, spec, QUIET)["confusion"]
        == json.loads((finished_run / "results.json").read_text())["confusion"]
    )
    (tmp_path / "t.csv").write_text("\n".join(lines).replace(",bar,", ",stick,"))
    command = ["evaluate", str(finished_run), spec.path, "--root", str(root), "--where", "day == 1", "--json"]
    half = CliRunner().invoke(app, [*command, "--rename", "stick=bar"])
    assert json.loads(half.stdout)["data"]["num_samples"] == len(files) // 2, half.output
    for pairs, told in (
        (["stick"], "the name in the pool, ="),
        (["a=b", "a=c"], "give it once"),
        (["a=b"], "class 'a'"),
    ):
        refused = CliRunner().invoke(app, [*command, *(part for pair in pairs for part in ("--rename", pair))])
        assert told in str(refused.exception)
    (tmp_path / "beside").symlink_to(root)
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps({"file_name": f"beside/{file}"}) for file in files[:2]))
    rows, bad = rows_of(finished_run, tmp_path / "p.jsonl", form="jsonl")
    assert ([row["image"] for row in rows], bad) == ([f"{tmp_path / 'p.jsonl'}:{row}" for row in range(2)], [])


def test_a_turned_photo_is_predicted_upright_as_in_training(finished_run, tmp_path):
    with Image.open(next((finished_run.parent / "test" / "bar").iterdir())) as upright:
        upright.save(tmp_path / "upright.png")
        turned, exif = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif()
        exif[0x0112] = 6  # the camera was held on its side
        turned.save(tmp_path / "turned.png", exif=exif)
    (first, second), _ = rows_of(finished_run, tmp_path / "turned.png", tmp_path / "upright.png", form="jsonl")
    assert first["probabilities"] == second["probabilities"]


def test_a_bad_image_has_a_row_that_says_why_and_shifts_no_other(finished_run, tmp_path):
    root = finished_run.parent / "test" / "disk"
    good = sorted(root.iterdir())[:3]
    (tmp_path / "b.png").write_bytes(b"text")
    (tmp_path / "c.png").write_bytes(good[0].read_bytes()[:60])
    paths = [good[0], tmp_path / "b.png", good[1], tmp_path / "c.png", good[2]]
    alone, _ = rows_of(finished_run, *good)
    rows, bad = rows_of(finished_run, *paths)
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    assert [rows[0], rows[2], rows[4]] == alone
    assert [item.name for item in bad] == [str(tmp_path / "b.png"), str(tmp_path / "c.png")]
    assert rows[1]["error"] == "not a readable image: of no image format"
    assert rows[1]["predicted"] == rows[3]["p(bar)"] == ""
    lines, _ = rows_of(finished_run, *paths, form="jsonl")
    assert set(lines[1]) == {"image", "error"}


@pytest.mark.parametrize("make", ["missing", "empty", "no picture column"])
def test_paths_without_images_are_all_told_before_anything_is_predicted(finished_run, tmp_path, make):
    paths = {
        "missing": (tmp_path / "gone", "gone: no such file or folder"),
        "empty": (tmp_path, "no images in this folder"),
        "no picture column": (finished_run / "rates.parquet", "no image column; .*columns: 'sample_id'"),
    }
    path, told = paths[make]
    file = io.StringIO()
    with pytest.raises(DataError, match=told):
        predict(finished_run, [finished_run.parent / "test", path], file, "csv", QUIET)
    assert file.getvalue() == ""


def test_evaluation_refuses_what_it_cannot_judge(finished_run, tmp_path):
    pool = tmp_path / "pool"
    for name in ("bar", "disk"):
        (pool / name).mkdir(parents=True)
        Image.new("RGB", (20, 20), "red").save(pool / name / "0.png")
    (pool / "disk" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 3 images cannot be read\n  disk/1.png: not a readable image"):
        evaluate(finished_run, PoolSpec(path=str(pool)), QUIET)
    (pool / "disk").rename(pool / "square")
    with pytest.raises(DataError, match=r"class 'square' is not among .* \('bar', 'disk', 'ring'\)"):
        evaluate(finished_run, PoolSpec(path=str(pool)), QUIET)


def test_a_folder_without_a_finished_run_is_refused(tmp_path, finished_run):
    (tmp_path / "recipe.yaml").write_bytes((finished_run / "recipe.yaml").read_bytes())
    with pytest.raises(DataError, match="no finished run here"):
        evaluate(tmp_path, PoolSpec(path=str(finished_run.parent / "test")), QUIET)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes((finished_run / "model" / "config.json").read_bytes())
    (tmp_path / "model" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(DataError, match="cannot be opened as a timm model"):
        evaluate(tmp_path, PoolSpec(path=str(finished_run.parent / "test")), QUIET)


def test_the_output_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyError), _rows_to(tmp_path / "out.csv") as file:
        file.write({"a": "half a row"}["a"] + {"a": ""}["gone"])
    assert list(tmp_path.iterdir()) == []
    with _rows_to(tmp_path / "out.csv") as file:
        file.write("name-\udcff é\n")
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "name-\\udcff é\n"
