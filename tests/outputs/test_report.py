import base64
import io
import json
import re
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from drawn_pools import encoded
from homing.errors import DataError
from homing.outputs.report.page import write_report
from homing.outputs.thumbnails import pictures_of
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec
from report_run import (
    BREAKOUT,
    HOSTILE,
    Page,
    metrics_rows,
    pictures,
    rates_table,
    results,
    score,
    write_run,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def html(run) -> str:
    return write_report(run, pictures).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_the_first_screen_says_what_was_asked_what_came_out_and_whether_it_was_worth_it(page):
    assert "home in on 15 labelled target images in 3 classes out of a pool of 120 source images" in page.text
    assert "On your 1,447 test images 91.2 % right; 95 % interval [89.6, 92.6]" in page.text
    assert "Pooled, target oversampled 88.0 % [86.2, 89.6]" in page.text
    assert "Worth it. +3.2 points" in page.text
    assert "Only 5 target images a class." in page.text


def test_every_section_is_there(page):
    ids = {attrs.get("id") for _, attrs in page.tags}
    assert {"comparison", "pictures", "rates", "groups", "training", "phi", "classes", "run"} <= ids
    for words in (
        "By photographer",
        "By source",
        "By class",
        "3 min 7 s",
        "8,100",
        "1.87 GB",
        "Time of “Both pooled”",
        "resnet18",
        "chosen",
    ):
        assert words in page.text


def test_how_sure_it_is_stands_there_with_points_and_the_reason_for_no_temperature(page):
    for words in ("How sure it is", "Accuracy by coverage", "50 % 723 95.6 %", "No temperature was fitted: data.test"):
        assert words in page.text


def test_a_temperature_is_told_with_what_it_is_worth(tmp_path):
    found = results() | {"calibration": {"temperature": 1.5, "reason": None, "nll": 0.4, "ece": 0.02}}
    page = Page(write_report(write_run(tmp_path / "run", found), pictures).read_text())
    assert "a temperature of 1.50" in page.text
    assert "calibration error 0.020, NLL 0.400" in page.text


def test_the_galleries_show_the_extremes_with_label_id_and_rate(page, run):
    tiles = [attrs for attrs in page.all("li") if "data-overall" in attrs]
    assert len(tiles) == 24 + 24 + 24
    table = pq.read_table(run / "rates.parquet").sort_by([("rate", "descending")])
    highest = table["sample_id"].to_pylist()
    assert [tile["title"] for tile in tiles[:24]] == highest[:24]
    assert [tile["title"] for tile in tiles[24:48]] == highest[::-1][:24]
    assert f"{table['rate'][0].as_py():.2f}" in page.text


def test_each_class_has_its_own_choice_from_its_own_extremes(page, run):
    table = pq.read_table(run / "rates.parquet").sort_by([("rate", "descending")])
    dogs = table.filter(pa.compute.equal(table["label"], "dog"))["sample_id"].to_pylist()
    tiles = [attrs for attrs in page.all("li") if "data-in-class" in attrs and attrs["data-label"] == "dog"]
    assert [tile["title"] for tile in tiles[:12]] == dogs[:12]


def test_pictures_are_small_inline_webp_and_missing_ones_say_so(page, html):
    sources = [attrs["src"] for attrs in page.all("img")]
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert "not found" in page.text


def test_hostile_names_stay_text_everywhere(page, html):
    assert html.count("<script") == 1
    assert not [attrs for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert HOSTILE in page.text
    assert BREAKOUT in page.text
    assert "{{7*7}}" in page.text
    titles = {attrs.get("title") for attrs in page.all("li")}
    assert titles  # ids of tiles reach attributes unharmed
    assert all(title is None or title.startswith("pool/") or title in (HOSTILE, BREAKOUT) for title in titles)


def test_nothing_is_asked_of_the_network(page, html):
    assert not re.search(r"https?:|@import|url\((?!#)|<!DOCTYPE svg", html)
    for _, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert (attrs.get(name) or "#").startswith(("#", "data:"))
    policy = next(attrs["content"] for attrs in page.all("meta") if "content" in attrs and "http-equiv" in attrs)
    assert "default-src 'none'" in policy


def test_the_policy_allows_exactly_the_script_of_the_page(page, html):
    import base64
    import hashlib

    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html


def test_ids_are_unique_and_every_reference_leads_somewhere(page, html):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.tags:
        references = [*(attrs.get("aria-labelledby") or "").split(), attrs.get("for"), attrs.get("data-filter")]
        href = attrs.get("href") or ""
        references += [href[1:]] if href.startswith("#") else []
        assert {name for name in references if name} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_every_control_has_a_name(page, html):
    for attrs in page.all("input") + page.all("select"):
        assert any(label.get("for") == attrs["id"] for label in page.all("label"))
    assert not re.search(r"<button[^>]*>\s*</button>", html)
    assert all(attrs.get("aria-label") for _, attrs in page.tags if attrs.get("role") == "img")


def test_the_same_run_gives_the_same_page_byte_for_byte(run, html):
    assert write_report(run, pictures).read_text(encoding="utf-8") == html
    assert not list(run.glob(".report*"))


def test_a_run_with_the_least_that_the_contract_asks_for(tmp_path):
    found = {key: value for key, value in results().items() if key in ("version", "method", "seed", "target")}
    found |= {"rates": {}, "cost": {}, "baselines": {}, "warnings": []}
    table = rates_table().select(["sample_id", "label", "rate"])
    run = write_run(tmp_path / "bare", found, table)
    (run / "metrics.jsonl").unlink()
    (run / "recipe.yaml").unlink()
    page = Page(write_report(run, lambda ids: [None] * len(ids)).read_text())
    ids = {attrs.get("id") for _, attrs in page.tags}
    assert not ids & {"training", "phi", "classes", "gallery-doubtful"}
    assert "Nothing to compare with" in page.text
    assert "None of the pictures could be found" in page.text


def test_16_bit_pictures_are_shown_with_the_greys_that_the_model_sees(tmp_path):
    """The page itself, with pictures out of a pool on disk as `homing report` finds them."""
    ramp = np.linspace(0, 60_000, 64 * 64).reshape(64, 64).astype(np.uint16)
    names = [f"{name}/0.{kind}" for name in ("cat", "dog") for kind in ("png", "tif")]
    for name in names:
        (tmp_path / "pool" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ramp).save(tmp_path / "pool" / name)
    labels = [name.split("/")[0] for name in names]
    columns = {"sample_id": names, "source": ["s"] * 4, "label": labels, "rate": pa.array([1, 2, 3, 4], pa.float32())}
    folder = write_run(tmp_path / "run", table=pa.table(columns))
    text = write_report(folder, pictures_of(read_pool(PoolSpec(path=str(tmp_path / "pool"))))).read_text("utf-8")
    shown = set(re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", text))
    means = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).mean() for data in shown]
    assert means
    assert means == pytest.approx([ramp.mean() / 257] * len(means), abs=2)  # white would be 255


def test_null_metrics_and_missing_accuracy_are_shown_as_unknown(tmp_path):
    found = results() | {"target": {"accuracy": None, "num_test": None}, "baselines": {"pooled": {"accuracy": None}}}
    page = Page(write_report(write_run(tmp_path / "run", found), pictures).read_text())
    assert "No accuracy was recorded" in page.text
    assert "nan" not in page.text.lower().split()


def test_cross_validated_headline_says_so(tmp_path):
    found = results() | {"headline": "cross_validated", "target": score(0.8, 15)}
    page = Page(write_report(write_run(tmp_path / "run", found), pictures).read_text())
    assert "Cross-validated on your 15 target images" in page.text
    assert "There was no test set" in page.text


def test_unknown_rates_are_left_out_and_counted_and_uniform_rates_are_named(tmp_path):
    table = rates_table()
    rate = pa.array([None, float("nan")] + [1.0] * (len(table) - 2), pa.float32())
    table = table.set_column(table.column_names.index("rate"), "rate", rate)
    page = Page(write_report(write_run(tmp_path / "run", table=table), pictures).read_text())
    assert "2 source images could not be read or have no finite rate" in page.text
    assert "All rates of this run are equal" in page.text


def test_rates_of_zero_are_counted_beside_a_logarithmic_histogram(tmp_path):
    table = rates_table()
    rate = np.where(np.arange(len(table)) < 30, 0, np.geomspace(0.01, 50, len(table)))
    table = table.set_column(table.column_names.index("rate"), "rate", pa.array(rate, pa.float32()))
    page = Page(write_report(write_run(tmp_path / "run", table=table), pictures).read_text())
    assert "30 have the rate 0" in page.text


def test_a_pool_of_a_million_stays_under_5_megabytes(tmp_path):
    rows, num_classes = 1_000_000, 37
    rng = np.random.default_rng(0)
    label = rng.integers(0, num_classes, rows)
    table = pa.table(
        {
            "sample_id": [f"class-{code}/{row:07d}.jpg" for row, code in enumerate(label)],
            "source": [f"source-{code % 7}" for code in label],
            "label": [f"class-{code}" for code in label],
            "rate": pa.array(rng.lognormal(0, 1, rows), pa.float32()),
            "target_likeness": pa.array(rng.normal(size=rows), pa.float32()),
            "label_consistency": pa.array(
                np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)), pa.float32()
            ),
            "target_alignment": pa.array(rng.normal(size=rows), pa.float32()),
            "visits": pa.array(rng.integers(0, 9, rows), pa.int32()),
            "suggested_label": [f"class-{code}" if code % 2 else None for code in rng.integers(0, num_classes, rows)],
            "photo": [f"photo-{row // 2}" for row in range(rows)],
        }
    )
    asked = []

    def noisy(ids):
        asked.extend(ids)
        return [encoded(Image.fromarray(rng.integers(0, 255, (160, 160, 3), dtype=np.uint8)))] * len(ids)

    run = write_run(tmp_path / "run", table=table)
    start = time.process_time()
    report = write_report(run, noisy)
    seconds = time.process_time() - start
    assert report.stat().st_size < 5_000_000
    assert len(asked) == len(set(asked)) <= 600
    assert seconds < 60  # of one core
    print(f"{report.stat().st_size / 1e6:.2f} MB, {seconds:.1f} s")
    assert "500,000 values; the 100 highest and lowest rated are shown" in Page(report.read_text()).text


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"results\.json: there is no such file.*homing run"):
        write_report(tmp_path, pictures)
    write_run(tmp_path)
    (tmp_path / "results.json").write_text('{"target": ')
    with pytest.raises(DataError, match="not valid JSON"):
        write_report(tmp_path, pictures)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(DataError, match="no JSON object"):
        write_report(tmp_path, pictures)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(DataError, match='"target" object'):
        write_report(tmp_path, pictures)
    assert not (tmp_path / "report.html").exists()


def test_a_rates_file_that_cannot_be_used_is_refused(tmp_path):
    run = write_run(tmp_path, table=rates_table().drop_columns(["rate"]))
    with pytest.raises(DataError, match="has no column rate; found sample_id"):
        write_report(run, pictures)
    (run / "rates.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        write_report(run, pictures)
    pq.write_table(rates_table().slice(0, 0), run / "rates.parquet")
    with pytest.raises(DataError, match="nothing to show"):
        write_report(run, pictures)


def test_a_run_of_a_single_logged_step_has_no_curves(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text(json.dumps(metrics_rows()[0]) + "\n")
    page = Page(write_report(run, pictures).read_text())
    assert "training" not in {attrs.get("id") for _, attrs in page.tags}


def test_a_run_that_stopped_after_the_rates_has_a_report_without_a_verdict(tmp_path):
    found = results() | {"headline": "none", "target": None, "baselines": {}}
    page = Page(write_report(write_run(tmp_path / "run", found), pictures).read_text())
    assert "Rates only: nothing was trained" in page.text
    ids = {attrs.get("id") for _, attrs in page.tags}
    assert {"pictures", "rates", "groups", "phi"} <= ids
    assert "comparison" not in ids
    assert not any("verdict" in (attrs.get("class") or "") for _, attrs in page.tags)
