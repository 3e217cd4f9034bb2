"""An S3 server on loopback, and what its clients need to know of it: nothing that tests talk to is elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving() -> Iterator[dict[str, str]]:
    """A server with empty buckets, for as long as the block lasts; what the environment of its clients has to say."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        yield {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", **keys}
    finally:
        server.stop()


def upload(path: Path, url: str) -> str:
    """A file, or all files below a folder, to a URL; returns the URL."""
    from homing.pools.object_store import file_system

    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        where = url if path.is_file() else f"{url}/{file.relative_to(path).as_posix()}"
        file_system("s3").pipe_file(where, file.read_bytes())
    return url
