"""Corpora in further forms and files, with the target, weights of losses and a card; read with the users' readers."""

import json
import shutil
import tracemalloc
import warnings

import datasets
import lance
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from homing.cli.app import app
from homing.cli.corpora import pools_of
from homing.errors import DataError, RecipeError
from homing.outputs import corpus_shards
from homing.outputs.corpus import Wanted, write_corpus
from homing.outputs.rates_table import CsvTable
from homing.recipe.data import PoolSpec


def write(folder, output, **wanted):
    sources, target = pools_of(folder)
    return write_corpus(folder, sources, output, Wanted(**wanted), target=target)


def rates_of(folder):
    return pandas.read_parquet(folder / "rates.parquet").set_index("sample_id")


@pytest.fixture(scope="module")
def weight(finished_run):
    return json.loads((finished_run / "results.json").read_text())["rates"]["phi"]["target_weight"]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_file_holds_the_rates_of_the_rows_that_are_wanted(finished_run, tmp_path, suffix):
    read = {"parquet": pandas.read_parquet, "csv": pandas.read_csv}[suffix]
    own = rates_of(finished_run)
    summary = write(finished_run, tmp_path / f"all.{suffix}")
    assert (summary["form"], summary["num_rows"]) == ("table", 42)
    found = read(tmp_path / f"all.{suffix}").set_index("sample_id")
    assert list(found.columns) == list(own.columns)
    np.testing.assert_allclose(found.rate, own.rate, rtol=1e-6)
    write(finished_run, tmp_path / f"some.{suffix}", column_only=True)
    assert list(read(tmp_path / f"some.{suffix}").columns) == ["sample_id", "rate"]
    write(finished_run, tmp_path / f"drawn.{suffix}", draw=100)
    assert read(tmp_path / f"drawn.{suffix}").copies.sum() == 100
    with pytest.raises(RecipeError, match=r"exists already; give another --output, or remove it$"):
        write(finished_run, tmp_path / f"all.{suffix}")


@pytest.mark.parametrize("form", ["parquet", "webdataset", "lance", "folder", "metadata"])
def test_columns_that_others_added_to_the_rates_go_along_as_what_they_are(finished_run, tmp_path, monkeypatch, form):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    shutil.copytree(finished_run, tmp_path / "run")
    rates = pq.read_table(tmp_path / "run" / "rates.parquet")
    for name, values in (("views", np.arange(len(rates))), ("checked", np.arange(len(rates)) % 2 == 0)):
        rates = rates.append_column(name, pa.array(values))
    pq.write_table(rates, tmp_path / "run" / "rates.parquet")
    write(tmp_path / "run", tmp_path / "corpus", form=form, with_target=True)
    if form in ("parquet", "webdataset"):
        found = datasets.load_dataset(str(tmp_path / "corpus"), split="train")
        rows = found["json"] if form == "webdataset" else found.select_columns(["views", "checked"]).to_list()
        assert [(row["views"], row["checked"]) for row in rows] == [(row, row % 2 == 0) for row in range(len(rates))]


def test_a_csv_is_safe_for_spreadsheets(tmp_path):
    schema = pa.schema([("label", pa.dictionary(pa.int32(), pa.string())), ("rate", pa.float32())])
    with (tmp_path / "x.csv").open("wb") as file:
        table = CsvTable(file, schema)
        table.write_table(
            pa.table([pa.array(["=A1", "'+", "a=b"]).dictionary_encode(), [1.0, np.nan, 2]], schema=schema)
        )
        table.close()
    assert (tmp_path / "x.csv").read_text().splitlines()[1:] == ['"\'=A1",1', "\"''+\",", '"a=b",2']


def test_weights_of_losses_have_the_mean_one_over_all_that_is_trained_on(finished_run, tmp_path, weight):
    write(finished_run, tmp_path / "corpus", loss_weights=True, with_target=True)
    parts = {
        split: datasets.load_dataset(str(tmp_path / "corpus"), split=split, cache_dir=str(tmp_path / "cache"))
        for split in ("train", "target")
    }
    together = datasets.concatenate_datasets(list(parts.values()))
    weights, rates = np.array(together["loss_weight"]), np.array(together["rate"])
    assert weights.mean() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(weights / rates, weights[0] / rates[0], rtol=1e-5)
    assert parts["target"].num_rows == 12
    assert set(parts["target"]["rate"]) == {np.float32(weight)}
    assert parts["target"].features["label"].names == ["bar", "disk", "ring"]
    names = [together.features["label"].int2str(label) for label in parts["target"]["label"]]
    assert names == [name.partition("/")[0] for name in parts["target"]["sample_id"]]


def test_the_target_of_drawn_rows_weighs_as_much_beside_fewer_of_them(finished_run, tmp_path, weight):
    write(finished_run, tmp_path / "corpus", draw=21, with_target=True, form="metadata")
    target = pandas.read_csv(tmp_path / "corpus" / "target" / "metadata.csv")
    np.testing.assert_allclose(target.rate, weight / 2, rtol=1e-4)
    assert "drawn by rate already" in (tmp_path / "corpus" / "README.md").read_text()


def test_a_target_that_changed_since_the_run_is_not_given_the_weight_that_it_had(finished_run, tmp_path):
    sources, target = pools_of(finished_run)
    pool = shutil.copytree(target.path, tmp_path / "target")
    spec = target.model_copy(update={"path": str(pool)})
    assert write_corpus(finished_run, sources, tmp_path / "same", Wanted(with_target=True), target=spec)["target"] == 12
    (pool / "bar" / "000.png").unlink()
    with pytest.raises(DataError, match=r"--with-target: .*target changed since the run saw it"):
        write_corpus(finished_run, sources, tmp_path / "other", Wanted(with_target=True), target=spec)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["same", "target"]


@pytest.mark.parametrize("form", ["parquet", "folder", "metadata", "webdataset", "lance"])
def test_a_card_says_what_the_rates_are_and_how_to_train(finished_run, tmp_path, monkeypatch, weight, form):
    write(finished_run, tmp_path / "corpus", form=form, with_target=True)
    card = (tmp_path / "corpus" / "README.md").read_text()
    results = json.loads((finished_run / "results.json").read_text())
    assert yaml.safe_load(card.split("---")[1])["task_categories"] == ["image-classification"]
    for words in (
        "42 of 42 samples of the source pool; and 12 labelled images of the target",
        results["data"]["target"]["digest"],
        *(f"`{name}`" for name in results["rates"]["phi"]),
        f"counts {weight:.3g} times (`target_weight`)",
        "weight losses",
    ):
        assert words in card
    if form != "folder":
        code = card.split("```python\n")[1].split("```")[0]
        monkeypatch.chdir(tmp_path)
        exec(compile(code, "README.md", "exec"), page := {"__name__": "page"})
        assert len(page["corpus"]) == (54 if form == "parquet" else 42)
        assert form != "parquet" or len(page["sampler"]) == 54


def test_shards_are_read_by_webdataset(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_shards, "SHARD_BYTES", 8_000)
    write(finished_run, tmp_path / "corpus", form="webdataset", with_target=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        shards = sorted(map(str, (tmp_path / "corpus").glob("train-*.tar")))
        assert len(shards) > 2
        read = webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("png", "json")
        found = {about["sample_id"]: (image, about) for image, about in read}
    rates = rates_of(finished_run)
    assert set(found) == set(rates.index)
    for name, (image, about) in found.items():
        assert image.size == (24, 24)
        assert about["label"] == rates.label[name] == ["bar", "disk", "ring"][about["label_index"]]
        assert about["rate"] == pytest.approx(rates.rate[name])


def test_shards_of_several_kinds_of_images_are_read_by_datasets(finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pool, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(finished_run.parent / "source", pool)
    shutil.copytree(finished_run, run)
    for path in sorted(pool.rglob("*.png"))[1::2]:
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    rates = pandas.read_parquet(run / "rates.parquet")
    rates["sample_id"] = [n if (pool / n).exists() else n.replace(".png", ".jpg") for n in rates.sample_id]
    rates["suggested_label"] = [None] * 20 + ["disk"] * 22  # readers that guess types have seen none by then
    rates.to_parquet(run / "rates.parquet")
    for draw in (None, 5):  # the second at the place of the first, of which readers may have kept rows
        target = pools_of(run)[1]
        write_corpus(
            run,
            [PoolSpec(path=str(pool))],
            tmp_path / "shards",
            Wanted(None, form="webdataset", draw=draw, with_target=True),
            target=target,
        )
        read = datasets.load_dataset("shards", cache_dir=str(tmp_path / "cache"))
        assert (len(read["train"]), len(read["target"])) == (draw or 42, 12)
        for row in read["train"]:
            assert (row["jpg"] or row["png"]).size == (24, 24)
            assert row["json"]["rate"] == rates.set_index("sample_id").rate[row["json"]["sample_id"]]
        shutil.rmtree(tmp_path / "shards")


def test_what_was_written_into_a_shard_is_not_kept(finished_run, tmp_path):
    def peak(draw):
        tracemalloc.start()
        write(finished_run, tmp_path / str(draw), form="webdataset", draw=draw)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)  # what is imported on the way
    few, many = peak(200), peak(1_000)
    assert many - few < 800 * 200  # a header that is kept takes some 600 bytes, and a sample has two


def test_a_lance_table_has_pictures_and_rates(finished_run, tmp_path):
    write(finished_run, tmp_path / "corpus", form="lance", draw=60)
    table = lance.dataset(tmp_path / "corpus" / "train.lance").to_table().to_pandas()
    assert len(table) == 60
    source = pools_of(finished_run)[0][0].path
    for row in table.iloc[[0, -1]].itertuples():
        with open(f"{source}/{row.sample_id}", "rb") as file:
            assert row.image == file.read()
    assert (table.rate.to_numpy() == rates_of(finished_run).rate[table.sample_id].to_numpy()).all()
    assert table.label.dtype == object or str(table.label.dtype).startswith("str")


def test_what_cannot_be_meant_is_refused(finished_run, tmp_path):
    for told, output, wanted in (
        ("weigh alike", "a", {"loss_weights": True, "draw": 5}),
        ("exclude each other", "a", {"with_target": True, "column_only": True}),
        ("is a table; give a folder", "a.csv", {"with_target": True}),
        ("--format lance makes a folder, and .*a.csv is a table", "a.csv", {"form": "lance"}),
    ):
        with pytest.raises(RecipeError, match=told):
            write(finished_run, tmp_path / output, **wanted)
    (source,), target = pools_of(finished_run)
    unlabelled = target.model_copy(update={"labels": "none"})
    with pytest.raises(DataError, match="no labels to train with"):
        write_corpus(finished_run, [source], tmp_path / "a", Wanted(with_target=True), target=unlabelled)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """A folder in which `homing rate` has rated the rows of a table."""
    folder = tmp_path_factory.mktemp("rated")
    for name, count in (("rows", 60), ("mine", 12)):
        labels = np.arange(count) % 3
        features = np.eye(3, 8)[labels] + 0.1 * np.random.default_rng(count).normal(size=(count, 8))
        columns = {"id": [f"{name}-{row}" for row in range(count)], "label": labels, "embedding": features.tolist()}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def test_rate_writes_a_folder_or_the_file_that_is_named(rated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["rate", "--source", str(rated / "rows.parquet"), "--target", str(rated / "mine.parquet"), "--quiet"]
    for output in ("rates.parquet", "rates.csv", "folder"):
        done = CliRunner().invoke(app, [*command, "--features", "embedding", "--output", output])
        assert done.exit_code == 0, done.output
        assert output in done.output.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "rates.csv", "rates.parquet"]
    kept = pandas.read_parquet("folder/rates.parquet")
    pandas.testing.assert_frame_equal(kept, pandas.read_parquet("rates.parquet"))
    np.testing.assert_allclose(pandas.read_csv("rates.csv").rate, kept.rate, rtol=1e-6)
    done = CliRunner().invoke(app, ["corpus", "folder", "-o", "best.csv", "--keep", "0.5", "--quiet"])
    assert done.output == "best.csv: 30 of 60 rows\n"
    with pytest.raises(DataError, match=r"rows without pictures come as a table: --output rates\.parquet"):
        write(tmp_path / "folder", tmp_path / "corpus")
    done = CliRunner().invoke(app, ["score", "folder", str(rated / "mine.parquet"), "-o", "scored.csv", "--quiet"])
    assert done.output.startswith("scored.csv: 12 rates, mean ")
