"""A real JupyterLab in a headless Chromium, for the tests of how notebooks look there."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WIDTH, HEIGHT, TALLEST = 1500, 1000, 16_000  # pixels; Chromium draws no taller page
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}


def need_chromium() -> tuple[str, str]:
    """Paths of Chromium and its driver, or a skip that says what to install."""
    pytest.importorskip("selenium", reason="selenium is missing: 'make test-lab' installs it")
    browsers = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    browser, driver = next(filter(None, browsers), None), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    return browser, driver


@contextmanager
def jupyterlab(root: Path, folder: Path, runs: Path) -> Iterator[str]:
    """A server on loopback with a token, nothing of the user's settings; gives its URL."""
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(NO_NEWS))
    token = secrets.token_hex(16)
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime"}
    own |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment = os.environ | {name: str(folder / place) for name, place in own.items()}
    environment |= {"JUPYTER_TOKEN": token, "QOQ_RUNS": str(runs), "HF_HUB_OFFLINE": "1"}
    call = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0"]
    call += [f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True"]
    call += ["--allow-root"] * _is_root()
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(call, env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            yield f"http://127.0.0.1:{_port(server, folder)}/lab/tree/{{}}?reset&token={token}"
        finally:
            server.terminate()  # it ends its kernels first, a busy one after some seconds
            server.wait(timeout=120)


def _port(server: subprocess.Popen[bytes], folder: Path) -> int:
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        for path in (folder / "runtime").glob("jpserver-*.json"):
            if text := path.read_text():
                return int(json.loads(text)["port"])
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start: {(folder / 'server.log').read_text()[-2000:]}")


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A headless browser with a fresh profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browser, driver = need_chromium()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    switches = ["headless=new", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"]
    switches += ["disable-background-networking", "disable-component-update"]
    switches += ["disable-dev-shm-usage", "force-device-scale-factor=1"]
    switches += [f"user-data-dir={profile}", f"window-size={WIDTH},{HEIGHT}"]
    switches += ["no-sandbox"] * _is_root()
    for switch in switches:
        options.add_argument(f"--{switch}")
    opened = webdriver.Chrome(options=options, service=Service(executable_path=driver))
    opened.set_script_timeout(600)
    # Lab acts on the notebook that has the focus, which no headless page gets by itself.
    opened.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
    try:
        yield opened
    finally:
        opened.quit()


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def run_all_cells(browser: Any, url: str) -> None:
    """Open a notebook as a reader does, run its cells, and save it."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.set_window_size(WIDTH, HEIGHT)
    browser.get(url)
    ready = """
        const session = window.jupyterapp?.shell.currentWidget?.sessionContext?.session;
        return session?.kernel?.connectionStatus === 'connected';
    """
    WebDriverWait(browser, 120).until(lambda page: page.execute_script(ready))
    said = browser.execute_async_script(
        """
        const done = arguments[0], commands = window.jupyterapp.commands;
        commands.execute('notebook:run-all-cells')
          .then(() => commands.execute('docmanager:save'))
          .then(() => done(''), error => done(String(error)));
        """
    )
    assert not said, said


def show_whole_page(browser: Any, theme: str) -> None:
    """Switch Lab's theme and make the window as tall as the notebook, so that all is drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.execute_async_script(
        """
        const done = arguments[1], commands = window.jupyterapp.commands;
        commands.execute('apputils:change-theme', {theme: arguments[0]}).then(() => done());
        """,
        theme,
    )
    light = "true" if theme == "JupyterLab Light" else "false"
    shown = "return document.body.dataset.jpThemeLight"
    WebDriverWait(browser, 30).until(lambda page: page.execute_script(shown) == light)
    height = 0
    while height != (height := _notebook_height(browser)):
        browser.set_window_size(WIDTH, min(height + 300, TALLEST))
        time.sleep(1)
    assert height + 300 <= TALLEST, f"the notebook is {height} pixels long: Chromium cuts it off"


def _notebook_height(browser: Any) -> int:
    """Pixels from the top of the notebook to the end of its last cell."""
    script = """
        const page = window.jupyterapp.shell.currentWidget.node;
        const pane = page.querySelector('.jp-WindowedPanel-outer');
        pane.scrollTop = 0;
        const cells = [...pane.querySelectorAll('.jp-Notebook-cell')];
        return cells.at(-1).getBoundingClientRect().bottom - pane.getBoundingClientRect().top;
    """
    return int(browser.execute_script(script))


def look(browser: Any) -> dict[str, Any]:
    """What is on the page: figures, tables, contrast of text, and what sticks out of its cell."""
    script = (Path(__file__).parent / "lab_page.js").read_text()
    return dict(browser.execute_script(script))
