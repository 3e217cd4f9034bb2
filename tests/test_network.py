import socket

import pytest


def test_the_suite_reaches_no_other_machine():
    with socket.socket() as ours, pytest.raises(OSError, match="no network"):
        ours.connect(("192.0.2.1", 80))


def test_the_suite_reaches_its_own_processes():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        assert ours.getpeername() == server.getsockname()
