"""Drives a page in headless Chromium through chromedriver.

Source of the commands: W3C, "WebDriver", https://www.w3.org/TR/webdriver2/.
"""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
NAMES = ("chromium", "chromium-browser", "google-chrome")  # programs, by system
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # key of an element reference
KEYS = {"right": "\ue014", "left": "\ue012", "end": "\ue010", "space": " "}


class Browser:
    """Open browser window."""

    def __init__(self, port: int):
        self._root = f"http://127.0.0.1:{port}"
        self._session = ""

    def start(self, flags: list[str], program: str) -> None:
        options = {"args": flags, "binary": program}
        wanted = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        body = {"capabilities": {"alwaysMatch": wanted}}
        self._session = f"/session/{self._send('/session', body)['sessionId']}"

    def _send(self, path: str, body: dict | None = None, method: str = "POST"):
        data = None if body is None else json.dumps(body).encode()
        url = f"{self._root}{self._session}{path}"
        request = urllib.request.Request(url, data, method=method)
        request.add_header("Content-Type", "application/json")
        # Ignores a proxy of the environment.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            message = json.load(error)["value"]["message"]
            raise AssertionError(f"{path} {body}: {message}") from error

    def open(self, path: Path) -> None:
        """Loads a page from a file."""
        self._send("/url", {"url": path.resolve().as_uri()})

    def resize(self, width: int, height: int) -> None:
        """Sets the size of the window in pixels."""
        self._send("/window/rect", {"width": width, "height": height})

    def dark(self, on: bool) -> None:
        """Sets whether the page sees a preference for dark colours."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        params = {"features": [feature]}
        body = {"cmd": "Emulation.setEmulatedMedia", "params": params}
        self._send("/goog/cdp/execute", body)

    def run(self, script: str, *arguments: object):
        """Runs a function body; returns its value."""
        body = {"script": script, "args": [*arguments]}
        return self._send("/execute/sync", body)

    def _find(self, selector: str) -> str:
        body = {"using": "css selector", "value": selector}
        return self._send("/element", body)[_ELEMENT]

    def click(self, selector: str) -> None:
        """Clicks the centre of an element."""
        self._send(f"/element/{self._find(selector)}/click", {})

    def click_at(self, selector: str, share: float) -> None:
        """Clicks an element at a fraction of its width."""
        width = self.run(
            "return document.querySelector(arguments[0]).clientWidth", selector
        )
        origin = {_ELEMENT: self._find(selector)}
        move = {"type": "pointerMove", "origin": origin, "y": 0, "duration": 0}
        actions = [
            {**move, "x": round((share - 0.5) * width)},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        pointer = {"type": "pointer", "id": "mouse", "actions": actions}
        self._send("/actions", {"actions": [pointer]})

    def press(self, name: str) -> None:
        """Presses a key."""
        actions = [{"type": kind, "value": KEYS[name]} for kind in ("keyDown", "keyUp")]
        body = {"actions": [{"type": "key", "id": "keys", "actions": actions}]}
        self._send("/actions", body)

    def text(self, selector: str) -> str:
        """Returns the visible text of an element."""
        return self.run(
            "return document.querySelector(arguments[0]).textContent", selector
        )

    def attribute(self, selector: str, name: str) -> str | None:
        """Returns an attribute of an element."""
        script = (
            "return document.querySelector(arguments[0]).getAttribute(arguments[1])"
        )
        return self.run(script, selector, name)

    def messages(self) -> list[str]:
        """Returns errors of scripts, security policy and loading."""
        entries = self._send("/se/log", {"type": "browser"})
        # Performance advice is due to reading pixels back, which only tests do.
        return [one["message"] for one in entries if one["source"] != "rendering"]

    def screenshot(self, path: Path) -> None:
        """Writes the window as PNG."""
        path.write_bytes(base64.b64decode(self._send("/screenshot", method="GET")))

    def close(self) -> None:
        if self._session:
            self._send("", method="DELETE")


@contextmanager
def browser(folder: Path):
    """Opens a browser with an empty profile in a folder; skips if none is installed."""
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip(f"needs one of {NAMES}, and chromedriver")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [driver, f"--port={port}", "--log-level=SEVERE"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    window = Browser(port)
    try:
        _wait_for(port)
        window.start([*FLAGS, f"--user-data-dir={folder}"], chromium)
        yield window
    finally:
        try:
            window.close()
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_for(port: int) -> None:
    """Waits until something listens on the port."""
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("chromedriver does not listen")
