"""A rate follows its sample: through updates, duplicates, files and processes."""

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from homing.errors import CheckpointError, DataError, DivergedError, HomingError
from homing.rates import RateTable, gather_updates
from homing.rates.rates_by_id import rates_by_id
from processes import together

torch.set_num_threads(1)


def learned(num_rows=20, steps=30, **arguments):
    table = RateTable(num_rows, **arguments)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(0, num_rows, (8,), generator=generator)
        table.update(rows, torch.randn(8, generator=generator) + (rows < num_rows // 2))
    return table


def equal(one, other):
    return all(torch.equal(one.state_dict()[name], other.state_dict()[name]) for name in one.state_dict())


def test_starts_uniform_and_small():
    table = RateTable(num_rows=1000)
    assert len(table) == 1000
    assert torch.equal(table[torch.arange(1000)], torch.ones(1000))
    assert table[torch.tensor([3])].dtype == torch.float32
    assert table.nbytes <= 24 * 1000


def test_helpful_rows_rise_and_harmful_rows_fall():
    table = learned(steps=200)
    assert table.rates[:10].mean() > 1 > table.rates[10:].mean()
    assert table.alignments[:10].mean() > 0 > table.alignments[10:].mean()
    assert int(table.visits.sum()) <= 8 * 200


def test_the_scale_of_the_alignments_does_not_matter():
    one, other = RateTable(6), RateTable(6)
    for seed in range(20):
        values = torch.randn(4, generator=torch.Generator().manual_seed(seed)).double()
        rows = torch.tensor([seed % 6, (seed + 1) % 6, (seed + 2) % 6, (seed + 3) % 6])
        one.update(rows, values)
        other.update(rows, values * 1024)
    assert torch.allclose(one.rates, other.rates, rtol=1e-6)


def test_alignments_that_all_agree_move_nothing():
    table = RateTable(10)
    for _ in range(50):
        table.update(torch.arange(10), torch.full((10,), 3.0))
    assert torch.allclose(table.rates, torch.ones(10), atol=1e-6)


def test_centring_within_the_class_keeps_classes_balanced():
    table = RateTable(40, num_classes=2)
    labels = torch.arange(40) % 2
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        table.update(torch.arange(40), 5.0 * labels + torch.randn(40, generator=generator), labels)
    assert abs(float(table.rates[labels == 0].mean() - table.rates[labels == 1].mean())) < 0.1


def test_equal_to_the_equations_in_plain_python():
    table = RateTable(3, learning_rate=0.2, momentum=0.5, decay=0.1, max_rate=2.0, memory=0.9)
    rates, velocities = [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]
    centre = square = seen = 0.0
    for rows, values in [([0, 1], [1.0, 2.0]), ([1, 2], [-3.0, 1.0]), ([0, 2], [4.0, -9.0])]:
        table.update(torch.tensor(rows), torch.tensor(values))
        seen = 0.9 * seen + 0.1
        centre = 0.9 * centre + 0.1 * sum(values) / 2
        centred = [value - centre / seen for value in values]
        square = 0.9 * square + 0.1 * sum(value**2 for value in centred) / 2
        for row, value in zip(rows, centred, strict=True):
            velocities[row] = 0.5 * velocities[row] + 0.5 * value / (square / seen) ** 0.5
            moved = rates[row] + 0.2 * velocities[row] - 0.1 * (rates[row] - 1)
            rates[row] = min(max(moved, 0.0), 2.0)
    assert torch.allclose(table.rates, torch.tensor(rates), rtol=1e-5)


def test_decay_brings_a_rate_back_to_one():
    table = learned(steps=100, decay=0.2)
    table.load_state_dict(table.state_dict() | {"velocity": torch.zeros(20)})
    before = (table.rates - 1).abs().max()
    for _ in range(60):
        table.update(torch.arange(20), torch.zeros(20))
    assert (table.rates - 1).abs().max() < before


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-1e6, 1e6)), min_size=1, max_size=40))
def test_rates_stay_within_bounds(updates):
    table = RateTable(5, learning_rate=5.0, max_rate=1.5)
    for row, value in updates:
        table.update(torch.tensor([row, (row + 1) % 5]), torch.tensor([value, 1.0]))
    assert table.rates.min() >= 0
    assert table.rates.max() <= 1.5


def test_duplicates_count_once_with_their_mean_in_any_order():
    one, other, merged = RateTable(4), RateTable(4), RateTable(4)
    rows, values = torch.tensor([2, 0, 2, 2]), torch.tensor([0.1, 5.0, 0.7, 1e-9])
    order = torch.tensor([3, 2, 0, 1])
    one.update(rows, values)
    other.update(rows[order], values[order])
    merged.update(torch.tensor([0, 2]), torch.tensor([5.0, (0.1 + 0.7 + 1e-9) / 3]))
    assert equal(one, other)
    assert torch.allclose(one.rates, merged.rates)
    assert one.visits.tolist() == [1, 0, 1, 0]


def test_a_bad_alignment_changes_nothing():
    table = learned()
    before = table.state_dict()
    with pytest.raises(DivergedError, match="row 7 "):
        table.update(torch.tensor([3, 7]), torch.tensor([1.0, float("nan")]))
    assert all(torch.equal(before[name], value) for name, value in table.state_dict().items())


@pytest.mark.parametrize(
    ("rows", "values"),
    [
        (torch.tensor([20]), torch.ones(1)),
        (torch.tensor([-1]), torch.ones(1)),
        (torch.tensor([1.5]), torch.ones(1)),
        (torch.tensor([True]), torch.ones(1)),
        (torch.tensor([[1]]), torch.ones(1)),
        (torch.tensor([1, 2]), torch.ones(3)),
    ],
)
def test_rows_that_are_none(rows, values):
    with pytest.raises(DataError, match="rows"):
        learned().update(rows, values)


@pytest.mark.parametrize("rows", [3, slice(3), "a", None, [[1]], [1.5], {1}])
def test_what_is_no_list_of_rows_is_told(rows):
    with pytest.raises(DataError, match=r"rows (have shape|are of the type)"):
        learned()[rows]


def test_rows_and_values_may_be_arrays_or_lists():
    tables = [learned() for _ in range(3)]
    tables[0].update(torch.tensor([1, 2]), torch.tensor([1.0, 3.0]))
    tables[1].update(np.array([1, 2]), np.array([1.0, 3.0]))
    tables[2].update([1, 2], [1.0, 3.0])
    assert torch.equal(tables[0].rates, tables[1].rates)
    assert torch.equal(tables[0].rates, tables[2].rates)
    assert torch.equal(tables[0][np.array([2, 1])], tables[0].rates[[2, 1]])


def test_labels_out_of_range():
    with pytest.raises(
        DataError, match=r"labels are \[1\] \(int64\); this table has the classes 0 to 0: give .* num_classes"
    ):
        learned().update(torch.tensor([1]), torch.ones(1), torch.tensor([1]))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (range(20), "ids are no texts: the first of them is 0"),
        (["a", *range(19)], "the id 0 is no text"),
        ("abcdefghijklmnopqrst", "ids are no texts: a single one is given"),
        ([None] * 20, "ids are no texts: the first of them is None"),
        (None, "ids are of the type NoneType; give a list of str"),
        ({str(row) for row in range(20)}, "ids are of the type set"),
    ],
)
def test_ids_that_are_no_texts_are_refused(ids, message, tmp_path):
    for save in (learned().save, learned().save_rates):
        with pytest.raises(DataError, match=message):
            save(tmp_path / "file", ids)
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_is_not_there_and_labels_that_are_no_texts_are_told(tmp_path):
    ids = [str(row) for row in range(20)]
    for save in (learned().save, learned().save_rates):
        with pytest.raises(DataError, match="none: no such folder for file; make it first"):
            save(tmp_path / "none" / "file", ids)
        with pytest.raises(DataError, match="is a folder; give the file to write"):
            save(tmp_path, ids)
    with pytest.raises(DataError, match=r"the text '\\udcff.png' is not Unicode"):
        learned().save_rates(tmp_path / "file", [*ids[1:], "\udcff.png"])
    with pytest.raises(DataError, match="values of label are no texts: the first of them is 1"):
        learned().save_rates(tmp_path / "file", ids, labels=[1] * 20)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_rows": 0},
        {"num_rows": 3.5},
        {"learning_rate": 0.0},
        {"learning_rate": float("inf")},
        {"momentum": 1.0},
        {"decay": 1.1},
        {"max_rate": 0.5},
        {"num_classes": 0},
        {"memory": 1.0},
    ],
)
def test_settings_out_of_range(arguments):
    with pytest.raises(HomingError, match=f"{next(iter(arguments))} is .*allowed"):
        RateTable(**({"num_rows": 3} | arguments))


def test_saved_rates_follow_their_ids(tmp_path):
    table = learned()
    table.save(tmp_path / "rates.safetensors", [f"image-{i}" for i in range(20)])
    edited = ["new-a", *(f"image-{i}" for i in reversed(range(5, 20))), "new-b"]
    other = RateTable(len(edited))
    assert other.load(tmp_path / "rates.safetensors", edited) == 15
    assert torch.equal(other.rates[1:16], table.rates[5:].flip(0))
    assert torch.equal(other.visits[1:16], table.visits[5:].flip(0))
    assert other.rates[[0, 16]].tolist() == [1.0, 1.0]
    assert [file.name for file in tmp_path.iterdir()] == ["rates.safetensors"]


def test_saved_and_loaded_goes_on_bit_for_bit(tmp_path):
    table, ids = learned(), [str(i) for i in range(20)]
    table.save(tmp_path / "rates", ids)
    loaded, restored = RateTable(20), RateTable(20)
    loaded.load(tmp_path / "rates", ids)
    restored.load_state_dict(table.state_dict())
    for each in (table, loaded, restored):
        each.update(torch.tensor([1, 2]), torch.tensor([0.5, -2.0]))
    assert equal(table, loaded)
    assert equal(table, restored)


def test_ids_may_be_a_series_of_any_index(tmp_path):
    table, ids = learned(), pandas.Series([f"image-{row}" for row in range(20)], index=range(100, 120))
    table.save(tmp_path / "rates", ids)
    assert RateTable(20).load(tmp_path / "rates", ids) == 20
    table.save_rates(tmp_path / "rates.parquet", ids)
    assert rates_by_id(tmp_path / "rates.parquet", ids[::-1]).tolist() == table.rates.flip(0).tolist()
    with pytest.raises(DataError, match="the id 'image-19' occurs twice"):
        table.save(tmp_path / "rates", ids.where(ids != "image-18", "image-19"))
    with pytest.raises(DataError, match="the first of them 'other'"):
        rates_by_id(tmp_path / "rates.parquet", ids.where(ids != "image-18", "other"))


def test_ids_must_be_unique_and_complete(tmp_path):
    with pytest.raises(DataError, match="'a' occurs twice"):
        RateTable(3).save(tmp_path / "rates", ["a", "b", "a"])
    with pytest.raises(DataError, match="2 ids for 3 rows"):
        RateTable(3).save(tmp_path / "rates", ["a", "b"])
    RateTable(3).save(tmp_path / "rates", ["a", "b", "c"])
    with pytest.raises(DataError, match="2 ids for 3 rows"):
        RateTable(3).load(tmp_path / "rates", ["a", "b"])


def test_rates_file_has_the_columns_of_a_runs_and_is_read_by_id(tmp_path):
    table, ids = learned(), [f"id-{row}" for row in range(20)]
    table.save_rates(tmp_path / "rates.parquet", ids, labels=["cat", "dog"] * 10, sources=["web"] * 20)
    found = pq.read_table(tmp_path / "rates.parquet").to_pydict()
    assert found["label"][:2] == ["cat", "dog"]
    assert found["source"] == ["web"] * 20
    assert found["visits"] == table.visits.tolist()
    assert found["target_alignment"] == table.alignments.tolist()
    assert all(value != value for value in found["target_likeness"])  # NaN: not known
    assert rates_by_id(tmp_path / "rates.parquet", ids[::-1]).tolist() == table.rates.flip(0).tolist()


@pytest.mark.parametrize(
    ("ids", "labels", "message"),
    [
        (["a", "b"], None, "2 ids for 3 rows"),
        (["a", "b", "a"], None, "'a' occurs twice"),
        (["a", "b", "c"], ["x"], "1 values of label for 3 rows"),
    ],
)
def test_a_rates_file_that_cannot_be_is_not_begun(tmp_path, ids, labels, message):
    with pytest.raises(DataError, match=message):
        RateTable(3).save_rates(tmp_path / "rates.parquet", ids, labels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: raw[:-8], lambda raw: b"\xff" * len(raw)])
def test_damaged_file(tmp_path, damage):
    path = tmp_path / "rates"
    learned().save(path, [str(i) for i in range(20)])
    path.write_bytes(damage(path.read_bytes()))
    table = RateTable(20)
    with pytest.raises(CheckpointError, match="rates"):
        table.load(path, [str(i) for i in range(20)])
    assert torch.equal(table.rates, torch.ones(20))


@pytest.mark.parametrize(
    "change",
    [
        {"rate": torch.full((20,), 7.0)},
        {"rate": torch.full((20,), float("nan"))},
        {"rate": torch.ones(3)},
        {"visits": torch.full((20,), -1)},
        {"square": torch.tensor([1.0, -1.0])},
        {"extra": torch.ones(3)},
    ],
)
def test_state_that_does_not_fit(change):
    table = learned()
    with pytest.raises(CheckpointError, match="rate table state"):
        RateTable(20).load_state_dict(table.state_dict() | change)


def _gather(folder):
    table, rank = RateTable(10), dist.get_rank()
    rows = torch.arange(6)[rank * 4 : rank * 4 + 4]
    table.update(*gather_updates(rows, rows.float() ** 2))
    torch.save(table.state_dict(), folder / f"{rank}.pt")


def test_two_processes_hold_the_table_of_one(tmp_path):
    together(_gather, 2, tmp_path)
    alone = RateTable(10)
    alone.update(*gather_updates(torch.arange(6), torch.arange(6).float() ** 2))
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert all(torch.equal(state[name], value) for name, value in alone.state_dict().items())
