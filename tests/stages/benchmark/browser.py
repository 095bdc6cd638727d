"""Headless Chromium for tests of pages, told what to do by its debugging pipe."""

import itertools
import json
import os
import shutil
import subprocess
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # root may not have one, and containers mostly cannot
    "--disable-gpu",
    "--no-zygote",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--remote-debugging-pipe",
)


def find_browser():
    """Return Chromium's path, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab. Every event that comes is kept."""

    def __init__(self, to_browser, from_browser):
        self._to, self._from = to_browser, from_browser
        self._ids = itertools.count(1)
        self._session = None
        self.events = []

    def attach(self):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Send a command and return its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while (answer := self._read()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path):
        """Go to a file and return when it has loaded."""
        self.call("Page.navigate", url=path.as_uri())
        while not any(each.get("method") == "Page.loadEventFired" for each in self.events):
            self.events.append(self._read())

    def value(self, expression):
        """Return what JavaScript says of the page."""
        options = {"awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def of(self, method):
        """Return the parameters of all events of a kind."""
        return [each["params"] for each in self.events if each.get("method") == method]

    def _read(self):
        parts = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            assert byte, "the browser has gone"
            parts += byte
        return json.loads(parts)


@contextmanager
def browser(program, folder, *, timeout_s=60):
    """Run Chromium with a new profile in `folder`; yield a page of it."""
    (read_3, write_3), (read_4, write_4) = os.pipe(), os.pipe()
    # it reads commands from its descriptor 3 and answers on 4; sh knows one digit only
    shell = f'exec 3<&{read_3} 4>&{write_4}; exec "$@"'
    command = ["bash", "-c", shell, "bash", "timeout", str(timeout_s), program, *FLAGS]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={folder}", "about:blank"],
        pass_fds=(read_3, write_4),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_3)
    os.close(write_4)
    with open(write_3, "wb") as to_browser, open(read_4, "rb") as from_browser:
        page = Page(to_browser, from_browser)
        try:
            page.attach()
            yield page
        finally:
            to_browser.close()  # it ends when its pipe does
            process.wait(timeout_s)
