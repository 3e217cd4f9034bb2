import json
import shutil

import pytest
import yaml

from drawn_pools import draw_pool
from homing.progress import Progress
from homing.recipe.reading import parse_recipe
from homing.validate import validate_data


@pytest.fixture
def root(tmp_path):
    for seed, (role, counts) in enumerate(
        {"source": {"cat": 6, "dog": 6, "emu": 2}, "target": {"cat": 5, "dog": 3}, "test": {"cat": 2, "dog": 2}}.items()
    ):
        draw_pool(tmp_path / role, counts, seed=seed)
    return tmp_path


def findings_of(root, *overrides, test=True):
    roles = ("source", "target", "test") if test else ("source", "target")
    tree = {"data": {role: {"path": str(root / role)} for role in roles}, "training": {"steps": 1, "workers": 0}}
    return validate_data(parse_recipe(yaml.safe_dump(tree), overrides), Progress(quiet=True))


def test_sound_pools_are_valid_and_described(root):
    findings = findings_of(root)
    assert findings.errors == []
    assert findings.warnings == ["target: no image of 'emu'"]
    source = findings.pools["source"]
    assert (source["num_samples"], source["num_classes"], source["path"]) == (14, 3, str(root / "source"))
    assert source["classes"] == ["cat", "dog", "emu"]
    (read,) = source["read_as"]
    assert (read["kind"], read["skipped"]) == ("image folder", {})
    assert findings.lines()[-1] == "valid"
    assert json.loads(json.dumps(findings.as_dict()))["valid"] is True


@pytest.mark.parametrize("workers", [0, 2])
def test_every_bad_image_is_named_with_its_role_and_reason(root, workers):
    (root / "source/cat/001.png").write_bytes(b"text")
    (root / "target/dog/000.png").write_bytes((root / "target/dog/000.png").read_bytes()[:300])
    (root / "test/cat/000.png").write_bytes(b"")
    findings = findings_of(root, f"training.workers={workers}")
    source, target, test = findings.errors
    assert source == "source cat/001.png: not a readable image: of no image format"
    assert target.startswith("target dog/000.png: not a readable image: ")
    assert test == "test cat/000.png: not a readable image: an empty file"
    assert findings.lines()[-1] == "3 errors"


def test_bad_images_to_be_dropped_are_warnings_unless_nothing_is_left(root):
    (root / "source/cat/001.png").write_bytes(b"text")
    findings = findings_of(root, "data.on_bad_image=drop")
    assert findings.errors == []
    assert any(text.startswith("source cat/001.png") for text in findings.warnings)
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"text")
    findings = findings_of(root, "data.on_bad_image=drop")
    assert findings.errors == ["test: none of its 4 images can be read"]


def test_dropped_images_do_not_count_towards_the_folds(root):
    for path in sorted((root / "target").rglob("*.png"))[:4]:
        path.write_bytes(b"text")
    findings = findings_of(root, "data.on_bad_image=drop")
    assert any("target: 4 labelled images are fewer than the 5 folds" in text for text in findings.errors)


def test_pictures_above_the_pixel_limit_are_named(root):
    findings = findings_of(root, "data.max_pixels=500")
    assert len(findings.errors) == 26
    assert "24 x 24 pixels, more than data.max_pixels (500)" in findings.errors[0]


def test_missing_pools_and_classes_are_told_together(root):
    shutil.rmtree(root / "source")
    shutil.rmtree(root / "test")
    findings = findings_of(root)
    assert [text.split(":")[0] for text in findings.errors] == ["source", "test"]
    assert findings.lines()[-1] == "2 errors"


def test_a_class_of_the_test_alone_is_an_error(root):
    draw_pool(root / "test", {"gnu": 1}, seed=8)
    (error,) = findings_of(root).errors
    assert error.startswith("test: class 'gnu' is not among the source's classes ('cat', 'dog', 'emu')")


def test_a_class_of_the_target_alone_is_a_warning(root):
    draw_pool(root / "target", {"gnu": 2, "emus": 1}, seed=8)
    findings = findings_of(root)
    assert (findings.errors, findings.num_outputs) == ([], 5)
    told, slip = (text for text in findings.warnings if "of the target alone" in text or "source lacks" in text)
    assert told == (
        "The target has 2 classes that the source lacks: 'emus' (1 image), 'gnu' (2 images). They are learned from the"
        " target's images alone."
    )
    assert slip.startswith("'emus' is a class of the target alone; did you mean 'emu', as in the source?")


def test_an_empty_class_folder_is_an_error(root):
    (root / "target" / "emu").mkdir()
    (error,) = findings_of(root).errors
    assert "no images of the class 'emu'" in error


def test_a_picture_in_two_roles_is_a_warning(root):
    shutil.copy(root / "target/cat/000.png", root / "test/cat/copy.png")
    shutil.copy(root / "source/cat/000.png", root / "test/cat/other.png")
    warnings = findings_of(root).warnings
    assert "the same picture is in target (cat/000.png) and test (cat/copy.png)" in warnings
    assert "the same picture is in source (cat/000.png) and test (cat/other.png)" in warnings


@pytest.mark.parametrize(
    ("overrides", "test", "folds"),
    [
        (("rates.folds=9",), True, 9),
        (("rates.method=uniform", "evaluation.folds=12"), False, 12),
        (("rates.method=uniform", "rates.folds=9"), True, None),
        (("rates.method=probe", "rates.folds=9"), True, 9),
        (("rates.folds=8",), True, None),
    ],
)
def test_a_target_smaller_than_its_folds_is_an_error(root, overrides, test, folds):
    errors = findings_of(root, *overrides, test=test).errors
    assert (
        errors == [] if folds is None else f"target: 8 labelled images are fewer than the {folds} folds of" in errors[0]
    )


def test_weak_targets_and_settings_without_effect_are_warnings(root):
    shutil.rmtree(root / "target" / "dog")
    for number in range(1, 5):
        (root / "target" / "cat" / f"{number:03d}.png").unlink()
    warnings = findings_of(root, "rates.method=uniform", "rates.momentum=0.1").warnings
    assert "rates.momentum: no effect with rates.method: uniform" in warnings
    assert "target: a single image of 'cat'; its folds cannot judge such a class" in warnings
    assert "target: all images are of the class 'cat'" in warnings


def test_truth_that_the_source_does_not_hold_is_an_error(root):
    errors = findings_of(root, "data.truth={}").errors
    assert [error.split(";")[0] for error in errors] == [
        "source: there is no column 'matches'",
        "source: there is no column 'clean'",
    ]


def test_bad_images_and_missing_classes_are_told_in_one_pass(root):
    (root / "source/cat/001.png").write_bytes(b"text")
    draw_pool(root / "target", {"CAT": 1}, seed=8)
    draw_pool(root / "test", {"yak": 1}, seed=9)
    (root / "test/cat/000.png").write_bytes(b"")
    errors = findings_of(root).errors
    assert [error.partition(":")[0] for error in errors] == ["target", "test", "source cat/001.png", "test cat/000.png"]


def test_bad_images_of_the_other_pools_are_told_where_one_is_missing(root):
    shutil.rmtree(root / "source")
    (root / "test/cat/000.png").write_bytes(b"")
    errors = findings_of(root).errors
    assert [error.partition(":")[0] for error in errors] == ["source", "test cat/000.png"]


def test_what_each_pool_was_read_as_is_said(root):
    (root / "source" / "notes.txt").write_text("x")
    (root / "source" / "cat" / "photo.dng").write_bytes(b"x")
    lines = findings_of(root).lines()
    assert "  classes: 'cat', 'dog', 'emu'" in lines
    assert (
        "  source: image folder; 14 rows of 3 classes; label from the folder directly in the pool,"
        " id from the path of the file; not read: 1 .dng, 1 .txt"
    ) in lines


def test_what_tables_were_read_as_is_said_for_each_of_several(root):
    files = sorted(path.relative_to(root / "source").as_posix() for path in (root / "source").rglob("*.png"))
    lines = ["photo;kind;sender", *(f"{file};{file[:3]};{number}" for number, file in enumerate(files))]
    (root / "t.csv").write_text("\n".join(lines))
    table = {"path": str(root / "t.csv"), "root": str(root / "source"), "image_column": "photo", "label_column": "kind"}
    both = [{**table, "where": "sender < 2"}, {"path": str(root / "source")}]
    findings = findings_of(root, f"data.source={json.dumps(both)}")
    assert (
        f"  t: csv separated by ;; 2 rows of 1 classes; image from photo, label from kind, id from photo;"
        f" 2 of {len(files)} rows where sender < 2"
    ) in findings.lines()
    chosen, whole = findings.pools["source"]["read_as"]
    assert (chosen["num_samples"], whole["num_samples"]) == (2, len(files))
    assert (chosen["columns"], chosen["version"]) == ({"image": "photo", "label": "kind", "id": "photo"}, "")


def test_files_that_are_no_images_by_their_name_are_a_warning_where_they_may_be_pictures(root):
    (root / "source" / "notes.txt").write_text("x")
    assert findings_of(root).warnings == ["target: no image of 'emu'"]
    (root / "source" / "cat" / "photo.dng").write_bytes(b"x")
    (root / "source" / "dog" / "scan").write_bytes(b"x")
    warning = findings_of(root).warnings[0]
    assert warning.startswith("source: 2 files were left out, for they are no images by their names:")
    assert "1 without a suffix (first: 'dog/scan'), 1 .dng (first: 'cat/photo.dng')" in warning


def test_classes_that_differ_by_case_or_outer_space_only_are_told_with_their_code_points(root):
    for name in ("Cat", "dog "):
        draw_pool(root / "source", {name: 1}, seed=7)
    cats, dogs = (text for text in findings_of(root).warnings if text.startswith("classes "))
    assert "'Cat' (U+0043 U+0061 U+0074) in source and 'cat' (U+0063 U+0061 U+0074) in source, target, test" in cats
    assert "'dog ' (U+0064 U+006F U+0067 U+0020) in source" in dogs
    draw_pool(root / "test", {"Emu": 1}, seed=8)
    (error,) = findings_of(root).errors
    assert error.endswith("'Emu' (U+0045 U+006D U+0075) is not quite 'emu' (U+0065 U+006D U+0075)")


def test_a_name_in_another_unicode_form_is_the_same_class(root):
    draw_pool(root / "source", {"caf\u00e9": 2, "cafe\u0301": 1}, seed=7)
    draw_pool(root / "target", {"cafe\u0301": 2}, seed=8)
    findings = findings_of(root)
    assert findings.errors == []
    assert findings.pools["source"]["classes"] == ["caf\u00e9", "cat", "dog", "emu"]


def test_two_unlike_layouts_are_refused_or_told(root):
    for split in ("train", "val"):
        shutil.copytree(root / "source", root / "split" / split)
    (error,) = findings_of(root, f"data.source.path={root / 'split'}").errors
    assert error.startswith(f"source: {root / 'split'}: the folders 'train', 'val' are named for splits, not classes")
    assert findings_of(root, f"data.source.path={root / 'split'}", "data.source.split=train").errors == []
    (root / "source" / "metadata.csv").write_text("file_name,kind\ncat/000.png,a\ndog/000.png,b\n")
    findings = findings_of(root)
    assert findings.errors == []
    assert findings.warnings[0].startswith(
        "source: metadata.csv has no column 'label', so folders were taken for classes ('cat', 'dog')"
    )


def test_unlabelled_images_are_described_without_classes(root):
    draw_pool(root / "unlabelled", {"2024": 2, "train": 1}, seed=9)
    (root / "unlabelled/train/broken.png").write_bytes(b"text")
    shutil.copy(root / "test/cat/000.png", root / "unlabelled/known.png")
    findings = findings_of(root, f"data.unlabelled.path={root / 'unlabelled'}")
    (error,) = findings.errors
    assert error.startswith("unlabelled train/broken.png: not a readable image")
    assert "the same picture is in unlabelled (known.png) and test (cat/000.png)" in findings.warnings
    assert f"unlabelled: 5 images without labels ({root / 'unlabelled'})" in findings.lines()
    assert findings.pools["unlabelled"]["num_classes"] == 0


@pytest.mark.parametrize(("role", "broken"), [("source", 0), ("test", 1)])
def test_unlabelled_images_of_which_none_is_new_are_an_error_as_in_a_run(root, role, broken):
    shutil.copytree(root / role, root / "unlabelled")
    images = sorted((root / "unlabelled").rglob("*.png"))
    for path in images[:broken]:
        path.write_bytes(b"no picture")
    overrides = (f"data.unlabelled.path={root / 'unlabelled'}", "data.on_bad_image=drop")
    which = f"{len(images) - broken} images{' that can be read' * broken}"
    told = f"unlabelled: all of its {which} are in the {role} too; give others, or leave data.unlabelled out"
    assert findings_of(root, *overrides).errors == [told]
    draw_pool(root / "unlabelled", {"new": 1}, seed=99)
    assert findings_of(root, *overrides).errors == []


def test_that_every_pool_is_missing_is_told(root):
    for role in ("source", "target", "test"):
        shutil.rmtree(root / role)
    errors = findings_of(root).errors
    assert [error.partition(":")[0] for error in errors] == ["source", "target", "test"]
