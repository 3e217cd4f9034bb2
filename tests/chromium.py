"""A page in a real, headless Chromium: which dialogs it opens and what it asks for (the DevTools protocol, by pipe)."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Seen:
    """What a page did. requests: addresses other than the page's own; failed: script errors."""

    title: str = ""
    text: str = ""
    dialogs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Chromium:
    """One browser with one blank page, ended with the context."""

    def __enter__(self) -> Chromium:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        # the protocol's pipe is 3 and 4 in the browser
        command = (
            f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}',
            os.environ["HOMING_CHROMIUM"],
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--remote-debugging-pipe", f"--user-data-dir={self._folder.name}", "about:blank"),
        )
        self._process = subprocess.Popen(
            ["bash", "-c", *command], pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._number, self.events = b"", 0, []
        target = self("Target.createTarget", url="about:blank")  # whether or not its own page is there yet
        attached = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self(f"{domain}.enable")
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._folder.cleanup()

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and wait for its answer; events on the way are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._in, 1 << 20)
            if not data:
                raise RuntimeError("the browser ended")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if event.get("method") == "Page.javascriptDialogOpening":  # it would wait for an answer for ever
            os.write(
                self._out,
                json.dumps(
                    {
                        "id": 10**9 + len(self.events),
                        "method": "Page.handleJavaScriptDialog",
                        "params": {"accept": True},
                        "sessionId": self._session,
                    }
                ).encode()
                + b"\0",
            )

    def open(self, page: Path) -> Seen:
        """Load a page to its end, press every button, and say what it did."""
        address = page.as_uri()
        self.events.clear()
        self("Page.navigate", url=address)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self._note(self._next())
        self.evaluate("document.querySelectorAll('button, summary, select').forEach(e => e.click())")
        seen = Seen(self.evaluate("document.title"), self.evaluate("document.body.innerText"))
        self.evaluate("new Promise(done => setTimeout(done, 50))")  # what the page put off
        for event in self.events:
            if event.get("method") == "Page.javascriptDialogOpening":
                seen.dialogs.append(event["params"]["message"])
            if event.get("method") == "Network.requestWillBeSent":
                url = event["params"]["request"]["url"]
                if url.partition("#")[0] != address and not url.startswith("data:"):
                    seen.requests.append(url)
        return seen

    def evaluate(self, code: str) -> Any:
        """The value of an expression in the page."""
        result = self("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        return result["result"].get("value")
