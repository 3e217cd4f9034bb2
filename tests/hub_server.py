"""As much of the Hugging Face hub's interface, on loopback, as it takes to load one dataset of one parquet file."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME, FILE = "tester/pets", "data/train-00000-of-00001.parquet"


def serve_dataset(data: bytes) -> ThreadingHTTPServer:
    """A server of the dataset `tester/pets`, whose only file is given; `shutdown` and `server_close` end it."""

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *parts):
            """Say nothing."""

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/datasets/{NAME}/tree/"):
                is_top = path.endswith(COMMIT)
                file = {"type": "file", "path": FILE, "size": len(data), "oid": "1" * 40}
                self.answer(
                    200, json.dumps([{"type": "directory", "path": "data", "oid": "2" * 40} if is_top else file])
                )
            elif path.startswith(f"/api/datasets/{NAME}/revision/gone"):
                self.answer(404, "{}", {"X-Error-Code": "RevisionNotFound"})
            elif path.startswith(f"/api/datasets/{NAME}"):
                self.answer(200, json.dumps({"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": FILE}], "tags": []}))
            elif path == f"/datasets/{NAME}/resolve/{COMMIT}/{FILE}":
                self.answer(200, data, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
            elif path.startswith(f"/datasets/{NAME}/resolve/"):
                self.answer(404, "", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            else:
                self.answer(404, "{}", {"X-Error-Code": "RepoNotFound"})

        def answer(self, code, body, headers=None):
            body = body.encode() if isinstance(body, str) else body
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    return server
