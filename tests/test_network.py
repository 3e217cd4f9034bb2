import socket
import subprocess
import sys

import pytest


def test_the_suite_reaches_no_other_machine():
    with socket.socket() as ours, pytest.raises(OSError, match="no network"):
        ours.connect(("192.0.2.1", 80))


def test_a_process_that_a_test_starts_reaches_no_other_machine_either():
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "the tests have no network" in done.stderr


def test_the_suite_reaches_its_own_processes():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        assert ours.getpeername() == server.getsockname()
