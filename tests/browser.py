"""A headless Chromium with the network cut, driven over its DevTools protocol."""

import base64
import io
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import websocket
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
REMEDY = "no Chromium found: install one, for instance 'apt-get install chromium', and run the tests again"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--remote-debugging-port=0", "--remote-allow-origins=*", "--window-size=1280,900",
    "--proxy-server=http://127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND",  # the network, cut twice
)  # fmt: skip
STILL_S = 0.6  # a plot is taken as drawn when the page sends no event for so long
PATIENCE_S = 30


def chromium():
    """Path of a Chromium on this machine, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page of a headless browser, and everything it complained about.

    Attributes
    ----------
    errors : list of str
        Console errors and uncaught exceptions since the last `open`.
    requests : list of str
        Addresses asked for since the last `open`.
    """

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [chromium(), *FLAGS, f"--user-data-dir={self.folder.name}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        port = self._port(Path(self.folder.name) / "DevToolsActivePort")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{port}/json") as page:
            address = next(t for t in json.load(page) if t["type"] == "page")["webSocketDebuggerUrl"]
        self.socket = websocket.create_connection(address, http_no_proxy=["127.0.0.1"], timeout=PATIENCE_S)
        self.number, self.errors, self.requests, self.loaded = itertools.count(1), [], [], False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        self.folder.cleanup()

    def _port(self, file):
        """The port that the browser chose, once it has written it."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if file.is_file() and len(lines := file.read_text().splitlines()) > 1:
                return lines[0]
            time.sleep(0.1)
        raise TimeoutError(f"{chromium()} did not start within {PATIENCE_S} s")

    def call(self, method, **parameters):
        """Send one command and return its result."""
        number = next(self.number)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self.socket.recv())).get("id") != number:
            self._note(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return message["result"]

    def _note(self, event):
        """Keep what a page test asks about."""
        what, content = event.get("method"), event.get("params", {})
        if what == "Page.loadEventFired":
            self.loaded = True
        elif what == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])
        elif what == "Runtime.exceptionThrown":
            details = content["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif what == "Runtime.consoleAPICalled" and content["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description", ""))) for a in content["args"]))
        elif what == "Log.entryAdded" and content["entry"]["level"] == "error":
            self.errors.append(f"{content['entry']['text']} {content['entry'].get('url', '')}")

    def open(self, path):
        """Open an HTML file and wait until it has loaded, set its mathematics and drawn its plots."""
        self.errors.clear()
        self.requests.clear()
        self.loaded = False
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        end = time.monotonic() + PATIENCE_S
        while not self.loaded and time.monotonic() < end:
            self._note(json.loads(self.socket.recv()))
        self.script("window.MathJax?.startup ? MathJax.startup.promise.then(() => true) : true")
        self.settle()

    def settle(self):
        """Wait until the page has been silent for a while, and as long again for what it draws."""
        self.socket.settimeout(STILL_S)
        try:
            for _ in range(10_000):
                self._note(json.loads(self.socket.recv()))
        except websocket.WebSocketTimeoutException:
            pass
        finally:
            self.socket.settimeout(PATIENCE_S)
        self.script("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def script(self, source):
        """Value of a JavaScript expression in the page; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=source, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", source))
        return answer["result"].get("value")

    def picture(self, box=None, scale=1):
        """Pixels of a box (x, y, width, height in the page), or of the whole page, as an array (rows, columns, 3)."""
        if box is None:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            box = (0, 0, size["width"], size["height"])
        clip = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": scale}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB"))

    def painted(self, box, least_sd):
        """The picture of a box once its pixels vary by more than `least_sd`, or what it shows when patience ends.

        A busy machine draws what is beyond the window some time after the page has fallen silent.
        """
        end = time.monotonic() + PATIENCE_S
        while (shot := self.picture(box)).std() <= least_sd and time.monotonic() < end:
            time.sleep(STILL_S)
        return shot

    def dark(self, on):
        """Ask for the dark or the light side of the theme."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
