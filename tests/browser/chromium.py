"""Headless Chromium through chromedriver's own HTTP protocol (W3C WebDriver): no client library."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

DRIVER, BROWSER = "chromedriver", ("chromium", "chromium-browser", "google-chrome")

#: Set to 1 where the tests must run: a missing browser is then an error, not a skip.
FORCE = "CERTIFY_BROWSER"


def missing() -> str | None:
    """Why no browser can be driven here, or None."""
    if shutil.which(DRIVER) is None:
        return "chromedriver is not installed (Debian: apt-get install chromium chromium-driver)"
    if not any(map(shutil.which, BROWSER)):
        return "chromium is not installed (Debian: apt-get install chromium chromium-driver)"
    return None


def forced() -> bool:
    return os.environ.get(FORCE) == "1"


class Page:
    """One browser window."""

    def __init__(self, address: str, session: str) -> None:
        self._base = f"{address}/session/{session}"

    def open(self, url: str) -> None:
        _call("POST", f"{self._base}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that ``script`` (a function body) returns."""
        return _call("POST", f"{self._base}/execute/sync", {"script": script, "args": list(arguments)})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Log entries since the last call: "browser" is the console, "performance" the protocol."""
        return _call("POST", f"{self._base}/se/log", {"type": kind})

    def requests(self) -> list[str]:
        """Every address the window asked for since the last call, data: addresses left out."""
        entries = (json.loads(entry["message"])["message"] for entry in self.log("performance"))
        sent = [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return _call("POST", f"{self._base}/goog/cdp/execute", {"cmd": name, "params": parameters})

    def close(self) -> None:
        _call("DELETE", self._base, None)


@contextmanager
def browser(folder: str) -> Iterator[Page]:
    """A window with an empty profile in ``folder`` that logs its console and its requests."""
    command = [DRIVER, "--port=0"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = _address(driver)
        options = {
            "args": [
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
                "--window-size=1280,1600",
                f"--user-data-dir={folder}",
            ],
            "binary": next(path for name in BROWSER if (path := shutil.which(name))),
        }
        wanted = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = _call("POST", f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})
        page = Page(address, made["sessionId"])
        try:
            yield page
        finally:
            page.close()
    finally:
        driver.terminate()
        driver.wait(timeout=20)


def _address(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout is not None
    for line in driver.stdout:
        if found := re.search(r"started successfully on port (\d+)", line):
            return f"http://127.0.0.1:{found[1]}"
    raise RuntimeError("chromedriver ended before it was ready")


def _call(method: str, url: str, body: Any) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    for attempt in range(3):
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from error
        except urllib.error.URLError:
            if attempt == 2:
                raise
            time.sleep(0.5)
    raise AssertionError("unreachable")
