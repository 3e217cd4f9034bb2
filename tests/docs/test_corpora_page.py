"""Every command and code block of docs/corpora.md runs as it is printed."""

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from homing.cli.app import app
from homing.recipe.reading import parse_recipe
from small_run import draw_folder

PAGE = Path(__file__).parents[2] / "docs" / "corpora.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```python (\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"^```bash\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A folder in which the page's commands were run, with small settings where they train or scan."""
    folder = tmp_path_factory.mktemp("page")
    draw_folder(folder / "pool", 8, seed=1, share_dark=0.3)
    draw_folder(folder / "customer", 4, seed=2, share_dark=1)
    draw_folder(folder / "new-images", 2, seed=3, share_dark=1)
    draw_rows(folder / "rows.parquet", 60, seed=4)
    draw_rows(folder / "mine.parquet", 12, seed=5)
    draw_rows(folder / "new-rows.parquet", 9, seed=6)
    small = ["model.image_size=48", "rates.folds=2", "training.workers=0", "data.source.label_column=null"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in COMMANDS:
            words = shlex.split(command)[1:] + (small if " run " in command else [])
            words = ["40" if word == "5000" else word for word in words]
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 0, (command, result.output, result.exception)
    return folder


def draw_rows(path, count, seed):
    """A table of samples that bring features along."""
    labels = np.arange(count) % 3
    features = np.eye(3, 8)[labels] + 0.1 * np.random.default_rng(seed).normal(size=(count, 8))
    ids = [f"{path.stem}-{row}" for row in range(count)]
    pq.write_table(pa.table({"id": ids, "label": labels, "embedding": features.tolist()}), path)


def run(name):
    namespace = {"__name__": "page"}
    exec(compile(BLOCKS[name], f"docs/corpora.md, block {name}", "exec"), namespace)
    return namespace


def test_the_commands_leave_what_the_page_says(ran):
    assert len(COMMANDS) == 11
    assert pq.read_table(ran / "rates" / "rates.parquet").num_rows == 24
    assert len(pandas.read_csv(ran / "rates.csv")) == 24
    assert [path.name for path in sorted((ran / "shards").glob("*.tar"))] == ["target-000000.tar", "train-000000.tar"]
    assert pq.read_table(ran / "best" / "data").num_rows == 6
    assert pq.read_table(ran / "drawn" / "data").num_rows == 40
    assert pq.read_table(ran / "new.parquet").num_rows == 6
    assert pq.read_table(ran / "rated" / "rates.parquet").num_rows == 60
    assert pq.read_table(ran / "new-rows-rated.parquet").num_rows == 9


def test_every_block_is_named_and_run():
    assert TEXT.count("```python") == len(BLOCKS)
    assert set(BLOCKS) == {"sampler", "sklearn", "trainer", "fiftyone", "cleanlab"}


def test_a_sampler_takes_rows_by_rate(ran, monkeypatch):
    monkeypatch.chdir(ran)
    page = run("sampler")
    rows = torch.cat(list(page["loader"]))
    assert len(rows) == 24
    assert len(page["sampler"]) == 24


def test_sample_weights_of_scikit_learn(ran, monkeypatch):
    monkeypatch.chdir(ran)
    page = run("sklearn")
    assert page["model"].predict(page["pixels"]).shape == (36,)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers.*")
def test_a_trainer_weights_its_loss(ran, monkeypatch):
    monkeypatch.chdir(ran)
    assert run("trainer")["trainer"].state.global_step == 3


def test_fiftyone_is_given_files_that_are_there(ran, monkeypatch):
    class Dataset(list):
        add_sample = list.append

    stand_in = ModuleType("fiftyone")
    stand_in.Dataset, stand_in.Sample, stand_in.Classification = Dataset, dict, dict
    monkeypatch.setitem(sys.modules, "fiftyone", stand_in)
    monkeypatch.chdir(ran)
    samples = run("fiftyone")["dataset"]
    assert len(samples) == 24
    assert all(Path(sample["filepath"]).is_file() and type(sample["rate"]) is float for sample in samples)
    assert samples[0]["ground_truth"] == {"label": Path(samples[0]["filepath"]).parent.name}


def test_cleanlab_leaves_out_what_is_probably_wrong(ran, monkeypatch):
    monkeypatch.chdir(ran)
    page = run("cleanlab")
    issues, learner = page["issues"], page["model"]
    assert {"is_label_issue", "label_score", "given_label", "predicted_label"} <= set(issues.columns)
    assert issues.label_score.between(0, 1).all()
    assert issues.predicted_label.notna().all()
    assert learner.get_label_issues().is_label_issue.tolist() == page["found"].tolist()
    assert learner.predict(page["pixels"]).shape == (24,)


def test_several_targets_as_printed_are_a_recipe():
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert set(parse_recipe(text + "training: {epochs: 0}\n").by_target()) == {"acme", "globex"}
