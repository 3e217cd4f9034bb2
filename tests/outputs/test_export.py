"""What `homing export` writes: a timm folder, ONNX, an upload; the models are real ones of a finished run."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import timm
import torch
import yaml

from homing.errors import DataError, RecipeError
from homing.models.saved import open_model
from homing.outputs import export as export_module
from homing.outputs.export import export_model
from homing.outputs.hub import push


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
        f"{low:.1%} to {high:.1%}",
        "Its 12 labelled images were used",
        "to learn the rates of the source",
        "It was not used to measure the figures above",
        'timm.create_model("local-dir:out", pretrained=True)',
    ):
        assert words in card
    assert "unknown" in (finished_run / "model" / "README.md").read_text()  # the run's own card names none


def test_onnx_takes_any_number_of_pictures_and_agrees_with_torch_to_1e_4(finished_run, tmp_path):
    import onnxruntime

    export_model(finished_run, "onnx", tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    saved = open_model(finished_run / "model")
    for count in (1, 2, 7):
        images = np.random.default_rng(count).normal(size=(count, 3, 32, 32)).astype(np.float32)
        (logits,) = session.run(["logits"], {"images": images})
        np.testing.assert_allclose(logits, saved.model(torch.from_numpy(images)).detach().numpy(), atol=1e-4)
    described = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    assert described["classes"] == ["bar", "disk", "ring"]
    assert (described["size"], described["canvas"]) == (saved.preprocessing.size, saved.preprocessing.canvas)
    assert "onnxruntime.InferenceSession" in (tmp_path / "out" / "README.md").read_text()


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
    assert len(list((tmp_path / "out").iterdir())) == 3


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
    assert "uploaded to" in done.stderr
    assert server.created.get("private") or server.created["visibility"] == "private"  # by the library's version
    assert server.files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
