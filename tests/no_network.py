"""Connections leave this machine nowhere; processes of one test may talk over loopback."""

from __future__ import annotations

import ipaddress
import socket


def _is_local(family: int, address: object) -> bool:
    if family == getattr(socket, "AF_UNIX", None):
        return True
    host = str(address[0]) if isinstance(address, tuple) else ""
    try:
        return host in ("", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def block() -> None:
    """From here on, connecting to any other machine is an error."""
    for name in ("connect", "connect_ex"):
        real = getattr(socket.socket, name)

        def guarded(self, address, real=real):
            if not _is_local(self.family, address):
                raise OSError(f"the tests have no network: {address}")
            return real(self, address)

        setattr(socket.socket, name, guarded)
