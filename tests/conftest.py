"""Every test: one thread, no network, caches of its own."""

import ipaddress
import os
import socket
import tempfile

import pytest

_CACHE = tempfile.TemporaryDirectory(prefix="homing-tests-", ignore_cleanup_errors=True)
# before any test module imports a library that reads them; subprocesses inherit them
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": _CACHE.name, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "RANK", "WORLD_SIZE"):
    os.environ.pop(name, None)


def _is_local(family: int, address: object) -> bool:
    if family == getattr(socket, "AF_UNIX", None):
        return True
    host = str(address[0]) if isinstance(address, tuple) else ""
    try:
        return host in ("", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def _no_network():
    """Connections leave this machine nowhere; processes of one test may talk over loopback."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            real = getattr(socket.socket, name)

            def guarded(self, address, real=real):
                if not _is_local(self.family, address):
                    raise OSError(f"the tests have no network: {address}")
                return real(self, address)

            patch.setattr(socket.socket, name, guarded)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A finished run over drawn pictures of three classes, which lie beside it; read it, never write to it."""
    from homing.run import run
    from small_run import draw_problem, small_recipe

    folder = draw_problem(tmp_path_factory.mktemp("finished"))
    recipe = small_recipe(folder, "evaluation.baselines=[pooled_oversampled]", "training.steps=8")
    return run(recipe, folder / "run", quiet=True).folder
