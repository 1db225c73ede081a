# SPDX-License-Identifier: GPL-2.0
"""Drive a headless Chromium by the DevTools protocol, over two pipes: JSON documents that end with a NUL."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matrix.common.errors import MachineError

SECONDS = 60.0  # for one answer
# The sandbox does not work in containers and as root; what is opened is our own page.
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
             "--disable-background-networking", "--remote-debugging-pipe", "about:blank")  # fmt: skip


class Page:
    """A tab. Each method raises MachineError when Chromium gives no answer."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._buffer, self._number, self._session = to, back, b"", 0, ""
        self.complaints: list[str] = []  # what the console and the log of the browser said
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | ({"sessionId": self._session} if self._session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise MachineError(f"chromium: {method}: {answer['error'].get('message')}")
                result: dict[str, Any] = answer["result"]
                return result

    def _message(self) -> dict[str, Any]:
        """Return the next message. Note events on the way."""
        end = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._back], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._back, 1 << 20) if ready else b""
            if not data:
                raise MachineError("chromium ended or gave no answer")
            self._buffer += data
        one, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(one)
        method, parameters = message.get("method", ""), message.get("params", {})
        if method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(parameters)[:500])
        self._loaded = self._loaded or method == "Page.loadEventFired"
        return message

    def open(self, path: Path) -> None:
        """Load a file and wait until it is loaded."""
        self._loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._message()

    def look(self, width: int, height: int, dark: bool = False, media: str = "screen") -> None:
        """Set the size of the window in CSS pixels, and its medium and theme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[theme])

    def value(self, expression: str) -> Any:
        """Evaluate JavaScript and return its value, which must be JSON. Wait for a promise."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise MachineError(f"chromium: {expression[:80]}: {found['exceptionDetails'].get('text')}")
        return found["result"].get("value")

    def key(self, name: str, code: int, text: str = "") -> None:
        """Press a key."""
        keys = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **keys, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **keys)

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def pdf(self, path: Path) -> None:
        """Print to a file."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"]))


@contextmanager
def opened(program: str = "chromium") -> Iterator[Page]:
    """Yield a page of a new Chromium, which ends with the body. Raise MachineError when it does not start."""
    from_us, to = os.pipe()
    back, from_it = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # The protocol wants descriptors 3 and 4.
        shell = ["bash", "-c", f'exec {{a}}<&{from_us} {{b}}>&{from_it} 3<&$a 4>&$b; exec "$@"', "bash", program,
                 f"--user-data-dir={folder}", *ARGUMENTS]  # fmt: skip
        try:
            child = subprocess.Popen(  # pylint: disable=consider-using-with
                shell, pass_fds=(from_us, from_it), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        finally:
            os.close(from_us)
            os.close(from_it)
        try:
            yield Page(to, back)
        finally:
            os.close(to)
            os.close(back)
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
