import io
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from homing.errors import DataError
from homing.outputs.report import write_report
from homing.outputs.report_pictures import thumbnail
from homing.outputs.report_verdict import reference, scores, verdict, wilson

HOSTILE = "<script>alert(1)</script>"
BREAKOUT = "\"'><img src=x onerror=alert(2)>{{7*7}}</style></script>"
CLASSES = ["cat", "dog", HOSTILE]


class Page(HTMLParser):
    """Tags, attributes and text of a page as a browser would see them."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        if self._open and tag == self._open[-1]:
            self._open.pop()

    def handle_data(self, data):
        if not self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def drawn(sample_id: str, size: int = 120) -> bytes:
    """A real picture whose look depends on the id."""
    seed = sum(map(ord, sample_id))
    image = Image.new("RGB", (size, size - 20), (seed % 200, 80, 120))
    ImageDraw.Draw(image).ellipse((seed % 50, 10, 90, 80), fill=(250, seed % 250, 90))
    out = io.BytesIO()
    image.save(out, "JPEG" if seed % 2 else "PNG")
    return out.getvalue()


def pictures(ids: list[str]) -> list[bytes | None]:
    return [None if sample_id.endswith("7.png") else drawn(sample_id) for sample_id in ids]


def score(accuracy: float, num_test: int = 1447) -> dict:
    low, high = wilson(accuracy, num_test)
    return {
        "accuracy": accuracy,
        "macro_f1": accuracy - 0.01,
        "nll": 0.3,
        "ece": 0.02,
        "num_test": num_test,
        "accuracy_interval": [low, high],
    }


def results() -> dict:
    return {
        "version": "0.1.0",
        "recipe_sha256": "ab" * 32,
        "method": "hierarchical",
        "seed": 0,
        "target": score(0.912),
        "rates": {"effective_sample_size": 70.0, "phi": {"target_likeness": {"share": 0.1, "lift": 10}}},
        "cost": {"seconds": 187.4, "source_gradients": 8100, "peak_rss_mb": 1874, "method_seconds": {"pooled": 12.5}},
        "baselines": {"pooled_oversampled": score(0.88), "oracle": score(0.93), BREAKOUT: score(0.5)},
        "warnings": ["Only 5 target images a class.", f"Odd class {HOSTILE}"],
        "headline": "test",
        "data": {
            "source": {"num_samples": 120, "digest": "sha256:00"},
            "target": {"num_samples": 15},
            "test": {"num_samples": 1447},
            "classes": CLASSES,
        },
        "per_class": {name: {"accuracy": 0.9, "num_test": 482} for name in CLASSES},
        "confusion": [[450, 20, 12], [5, 470, 7], [0, 3, 480]],
        "judged": [
            {"share": share, "lift": 10, "nll": 0.4 + share, "standard_error": 0.02, "chosen": share == 0.1}
            for share in (0.02, 0.1, 0.4)
        ],
        "versions": {"torch": "2.9", "odd": BREAKOUT},
    }


def rates_table(rows: int = 120) -> pa.Table:
    rng = np.random.default_rng(3)
    labels = [CLASSES[row % 3] for row in range(rows)]
    return pa.table(
        {
            "sample_id": [f"pool/{row:04d}.png" for row in range(rows - 2)] + [HOSTILE, BREAKOUT],
            "source": pa.array([("shop", HOSTILE)[row % 2] for row in range(rows)]).dictionary_encode(),
            "label": pa.array(labels).dictionary_encode(),
            "rate": pa.array(rng.lognormal(0, 1.2, rows), pa.float32()),
            "target_likeness": pa.array(rng.normal(size=rows), pa.float32()),
            "label_consistency": pa.array(rng.normal(size=rows), pa.float32()),
            "target_alignment": pa.array(np.full(rows, np.nan), pa.float32()),
            "visits": pa.array(np.ones(rows, dtype=np.int32)),
            "suggested_label": [None if row % 4 else CLASSES[(row + 1) % 3] for row in range(rows)],
            "photographer": [("Ada", BREAKOUT, None)[row % 3] for row in range(rows)],
        }
    )


def metrics_rows() -> list[dict]:
    return [
        {
            "kind": "train",
            "method": method,
            "step": step,
            "epoch": 0,
            "loss": 2.0 / (step + 1),
            "source_loss": 2.1 / (step + 1),
            "target_loss": None if step == 3 else 1.9 / (step + 1),
            "target_accuracy": step / 40,
            "effective_sample_size": 120 - step,
        }
        for method in ("hierarchical", "pooled_oversampled")
        for step in range(30)
    ]


def write_run(folder: Path, found: dict | None = None, table: pa.Table | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results() if found is None else found))
    pq.write_table(rates_table() if table is None else table, folder / "rates.parquet")
    lines = [json.dumps(row) for row in metrics_rows()]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"kind": "train", "st')  # cut off mid-line
    (folder / "recipe.yaml").write_text(f"name: digits\nmodel: {{backbone: resnet18}}\n# {HOSTILE}\n")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
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


def test_a_pool_of_200_000_stays_under_5_megabytes(tmp_path):
    rows, num_classes = 200_000, 37
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
        picture = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (160, 160, 3), dtype=np.uint8)).save(picture, "PNG")
        return [picture.getvalue()] * len(ids)

    run = write_run(tmp_path / "run", table=table)
    start = time.perf_counter()
    report = write_report(run, noisy)
    seconds = time.perf_counter() - start
    assert report.stat().st_size < 5_000_000
    assert len(asked) == len(set(asked)) <= 600
    assert seconds < 60  # about 5 on one core; the margin is for a busy machine
    assert "100,000 values; the 100 highest and lowest rated are shown" in Page(report.read_text()).text


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"results\.json: there is no such file.*homing run"):
        write_report(tmp_path, pictures)
    write_run(tmp_path)
    (tmp_path / "results.json").write_text('{"target": ')
    with pytest.raises(DataError, match="is not valid JSON"):
        write_report(tmp_path, pictures)
    (tmp_path / "results.json").write_text("[]")
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


@pytest.mark.parametrize("broken", [b"", b"not a picture", drawn("half")[:60]])
def test_bytes_that_are_no_picture_give_no_thumbnail(broken):
    assert thumbnail(broken) is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_every_kind_of_picture_gives_a_thumbnail_of_at_most_96_pixels(mode):
    import base64

    out = io.BytesIO()
    Image.new(mode, (300, 40)).save(out, "TIFF" if mode in ("CMYK", "F") else "PNG")
    address = thumbnail(out.getvalue())
    assert address is not None
    assert Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).size == (96, 13)


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


def test_wilson_interval_agrees_with_a_published_value():
    # 81 of 263: [0.2553, 0.3662] (Newcombe 1998, Statistics in Medicine 17, table I, method 3)
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_a_run_of_a_single_logged_step_has_no_curves(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text(json.dumps(metrics_rows()[0]) + "\n")
    page = Page(write_report(run, pictures).read_text())
    assert "training" not in {attrs.get("id") for _, attrs in page.tags}
