"""Every test: one thread, no network, caches of its own."""

import atexit
import importlib.util
import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import pytest

import no_network

_CACHE = tempfile.TemporaryDirectory(prefix="homing-tests-", ignore_cleanup_errors=True)
atexit.register(_CACHE.cleanup)  # before the interpreter does it, which would be a warning
_HERE = Path(__file__).parent
# before any test module imports a library that reads them; subprocesses inherit them
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": _CACHE.name, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "HOMING_CACHE": f"{_CACHE.name}/homing"}
for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "RANK", "WORLD_SIZE"):
    os.environ.pop(name, None)
_PATHS = [str(_HERE / "every_process"), str(_HERE), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _PATHS))  # no network in subprocesses
no_network.block()


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="many more kills, steps and fuzzed inputs (an hour or so)")


def pytest_configure(config):
    os.environ["HOMING_LONG_TESTS"] = "1" if config.getoption("--long") else "0"
    os.environ.setdefault("HOMING_CHROMIUM", next(filter(None, map(shutil.which, _BROWSERS)), ""))


_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_left_out = {"chromium": [], "heic": [], "ray": []}
_MODULES = {"heic": "pillow_heif", "ray": "ray"}
_MISSING = {
    "chromium": "no Chromium (install it, or set HOMING_CHROMIUM to its path)",
    "heic": "no pillow-heif (pip install 'homing[heic]')",
    "ray": "no Ray (pip install 'homing[ray]')",
}


def pytest_collection_modifyitems(config, items):
    """Tests need a browser, Ray or HEIC; where there is none they are left out, and the summary says so."""
    there = {name: importlib.util.find_spec(module) is not None for name, module in _MODULES.items()}
    there["chromium"] = bool(os.environ["HOMING_CHROMIUM"])
    for need in (name for name, is_there in there.items() if not is_there):
        _left_out[need] = [item.nodeid for item in items if item.get_closest_marker(need)]
        items[:] = [item for item in items if not item.get_closest_marker(need)]


def pytest_sessionfinish(session):
    for process in multiprocessing.active_children():  # a test that failed may have left one that waits for ever
        process.kill()
    if (sent := getattr(session.config, "workeroutput", None)) is not None:  # to the process that prints the summary
        sent["left_out"] = _left_out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    _left_out.update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter):
    for need, names in _left_out.items():
        if names:
            terminalreporter.section(f"not run: {_MISSING[need]}", yellow=True)
            for name in names:
                terminalreporter.line(name)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A finished run over drawn pictures of three classes, which lie beside it; read it, never write to it."""
    from homing.flow import run
    from small_run import draw_problem, small_recipe

    folder = draw_problem(tmp_path_factory.mktemp("finished"))
    recipe = small_recipe(folder, "evaluation.baselines=[pooled_oversampled]", "training.steps=8")
    return run(recipe, folder / "run", quiet=True).folder


@pytest.fixture(scope="session")
def exported(finished_run, tmp_path_factory):
    """Folders `timm` and `onnx` that `homing export` wrote of the finished run; read them, never write to them."""
    from homing.outputs.export import export_model

    folder = tmp_path_factory.mktemp("exported")
    for form in ("timm", "onnx"):
        export_model(finished_run, form, folder / form)
    return folder


@pytest.fixture(scope="session")
def _s3_server():
    from s3_server import serving

    with serving() as environment:
        yield environment


@pytest.fixture
def bucket(_s3_server, monkeypatch, request):
    """URL of an empty bucket of a real S3 server on this machine."""
    import hashlib

    from homing.pools.object_store import file_system

    for name, value in _s3_server.items():
        monkeypatch.setenv(name, value)
    url = f"s3://test-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]}"
    file_system("s3").mkdir(url)
    return url
