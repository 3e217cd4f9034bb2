"""What `homing export` writes: a timm folder, ONNX, an upload; the models are real ones of a finished run."""

import base64
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

from drawn_pools import draw_picture
from homing.errors import DataError, RecipeError
from homing.models.saved import open_model
from homing.outputs import export as export_module
from homing.outputs.export import export_model
from homing.outputs.hub import push
from homing.pools.decoding import decode
from homing.predict import predict
from homing.progress import Progress
from long_runs import LONG


def test_a_timm_folder_gives_the_models_own_logits_and_classes(finished_run, tmp_path):
    export_model(finished_run, "timm", tmp_path / "out")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    saved = open_model(finished_run / "model")
    images = torch.randn(3, 3, saved.preprocessing.size, saved.preprocessing.size)
    torch.testing.assert_close(model(images), saved.model(images))
    assert model.pretrained_cfg["label_names"] == ["bar", "disk", "ring"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocess.py",
        "preprocessing.json",
    ]


def test_the_card_says_what_the_model_was_made_from_and_what_the_target_was_used_for(finished_run, tmp_path):
    export_model(finished_run, "timm", tmp_path / "out", licence="cc-by-4.0")
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    results = json.loads((finished_run / "results.json").read_text())
    assert front["license"] == "cc-by-4.0"
    assert front["library_name"] == "timm"
    value = front["model-index"][0]["results"][0]["metrics"][0]["value"]
    assert value == pytest.approx(results["target"]["accuracy"], abs=1e-4)
    low, high = results["target"]["accuracy_interval"]
    for words in (
        "test_resnet",
        *(results["data"][role]["digest"] for role in ("source", "target", "test")),
        f"{100 * low:.1f} to {100 * high:.1f}",
        "Its 12 labelled images were used",
        "to learn the rates of the source",
        "It was not used to measure the figures above",
        'timm.create_model("local-dir:out", pretrained=True)',
    ):
        assert words in card
    assert "unknown" in (finished_run / "model" / "README.md").read_text()  # the run's own card names none


def test_onnx_takes_any_number_of_pictures_and_agrees_with_torch_to_1e_4(finished_run, exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    saved = open_model(finished_run / "model")
    for count in (1, 2, 7):
        images = np.random.default_rng(count).normal(size=(count, 3, 32, 32)).astype(np.float32)
        (logits,) = session.run(["logits"], {"images": images})
        np.testing.assert_allclose(logits, saved.model(torch.from_numpy(images)).detach().numpy(), atol=1e-4)
    described = json.loads((exported / "onnx" / "preprocessing.json").read_text())
    assert described["classes"] == ["bar", "disk", "ring"]
    assert (described["size"], described["canvas"]) == (saved.preprocessing.size, saved.preprocessing.canvas)
    assert "onnxruntime.InferenceSession" in (exported / "onnx" / "README.md").read_text()


ELSEWHERE = """
import sys
sys.modules["homing"] = None
sys.path.insert(0, "onnx")
import numpy, onnxruntime, timm, torch
from pathlib import Path
from preprocess import prepare, read_description
files = sorted(Path("pictures").iterdir())
torch.set_num_threads(1)
images = prepare(files, read_description("timm"))
assert (images == prepare([file.read_bytes() for file in files], read_description("onnx"))).all()
session = onnxruntime.InferenceSession("onnx/model.onnx", providers=["CPUExecutionProvider"])
with torch.inference_mode():
    ours = timm.create_model("local-dir:timm", pretrained=True).eval()(torch.from_numpy(images))
numpy.savez("logits.npz", images=images, onnx=session.run(["logits"], {"images": images})[0], timm=ours.numpy())
"""


def test_exports_prepare_pictures_of_every_size_as_the_run_did(finished_run, exported, tmp_path):
    """Elsewhere, where there is no homing: the script that an export carries, and the models."""
    for form in ("timm", "onnx"):
        shutil.copytree(exported / form, tmp_path / form)
    (tmp_path / "pictures").mkdir()
    sizes = [(24, 24), (37, 50), (131, 97), (500, 375), (755, 1006), (1001, 667), (2000, 301)]
    for number, size in enumerate(sizes):
        exif = Image.Exif()
        exif[0x0112] = 1 + number
        draw_picture(number, size=200).resize(size).save(tmp_path / "pictures" / f"{number}.jpg", exif=exif)
    draw_picture(9, size=300).convert("RGBA").save(tmp_path / "pictures" / "a.png")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ELSEWHERE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "logits.npz")
    files = sorted((tmp_path / "pictures").iterdir())
    saved = open_model(finished_run / "model")
    kind = saved.preprocessing.interpolation
    canvases = np.stack([decode(file.read_bytes(), saved.preprocessing.canvas, kind) for file in files])
    np.testing.assert_allclose(found["images"], saved.inputs(canvases).numpy(), atol=1e-6)
    rows = io.StringIO()
    predict(finished_run, files, rows, "jsonl", Progress(quiet=True))
    ours = [list(json.loads(line)["probabilities"].values()) for line in rows.getvalue().splitlines()]
    for form in ("timm", "onnx"):
        theirs = torch.from_numpy(found[form]).double().softmax(1).numpy()
        np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_an_onnx_file_says_its_classes_and_preprocessing(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    assert json.loads(found["classes"]) == ["bar", "disk", "ring"]
    assert json.loads(found["preprocessing"]) == json.loads((exported / "onnx" / "preprocessing.json").read_text())


@pytest.mark.parametrize("backbone", ["test_maxvit", "test_vit_relpos"] if LONG else ["test_vit_relpos"])
def test_window_and_relative_position_attention_are_written_too(backbone, tmp_path):
    size = timm.create_model(backbone).pretrained_cfg["input_size"][-1]
    network = timm.create_model(backbone, num_classes=3).eval()
    program = export_module._onnx_program(network, size)
    program.save(str(tmp_path / "model.onnx"), external_data=False)
    export_module._check_onnx(tmp_path / "model.onnx", network, size)


class Odd(torch.nn.Module):
    """A model that no exporter can follow: what it does depends on the numbers that it sees."""

    def forward(self, images):
        return images.mean((2, 3)) if float(images.sum()) > 0 else images.amax((2, 3))


def test_a_backbone_that_cannot_be_written_is_one_sentence_and_leaves_nothing(finished_run, tmp_path, monkeypatch):
    saved = dataclasses.replace(open_model(finished_run / "model"), model=Odd().eval())
    monkeypatch.setattr("homing.models.saved.open_model", lambda model: saved)
    with pytest.raises(DataError, match="this backbone cannot be written as ONNX") as caught:
        export_model(finished_run, "onnx", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_onnxruntime_gets_wrong_is_not_written(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "TOLERANCE", -1.0)
    with pytest.raises(DataError, match="onnxruntime is off by"):
        export_model(finished_run, "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_the_error_names_it(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(RecipeError, match=r"needs onnxruntime: pip install 'homing\[onnx\]'"):
        export_model(finished_run, "onnx", tmp_path / "out")


def test_a_folder_that_exists_or_a_run_that_is_not_finished_is_refused(finished_run, tmp_path):
    with pytest.raises(RecipeError, match="exists already"):
        export_model(finished_run, "timm", tmp_path)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "recipe.yaml").write_bytes((finished_run / "recipe.yaml").read_bytes())
    with pytest.raises(DataError, match="there is no finished run here"):
        export_model(tmp_path / "half", "timm", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["half"]


def test_an_upload_that_fails_says_what_to_do_and_keeps_the_folder(finished_run, tmp_path):
    export_model(finished_run, "timm", tmp_path / "out")
    with pytest.raises(DataError, match=r"was not uploaded.*is complete.*hf upload me/mine"):
        push(tmp_path / "out", "me/mine")
    assert len(list((tmp_path / "out").iterdir())) == 5


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as an upload needs, on this machine; keeps what it was sent."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        home = f"http://127.0.0.1:{self.server.server_port}/me/mine"
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            answer = {"url": home}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer = {"files": [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in files]}
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {"commitUrl": f"{home}/commit/{'0' * 40}", "commitOid": "0" * 40, "success": True}
        else:
            answer = {"errors": [], "warnings": []}
        self.reply(answer)

    def do_GET(self):
        self.reply({"id": "me/mine", "sha": "0" * 40, "siblings": []})

    def reply(self, answer):
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def test_an_upload_sends_every_file_to_a_private_repository(finished_run, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.asked, server.files = [], {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_TOKEN": "hf_" + "x" * 34}
        settings |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-m", "homing", "export", str(finished_run), "--output", str(tmp_path / "out")]
        done = subprocess.run(
            [*command, "--push-to-hub", "me/mine"],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert "uploaded to" in done.stdout
    assert server.created.get("private") or server.created["visibility"] == "private"  # by the library's version
    assert server.files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
