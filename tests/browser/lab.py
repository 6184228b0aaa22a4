"""JupyterLab in headless Chromium, as a student drives it: open, type, run all, save."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

from playwright.sync_api import sync_playwright

WAIT = 300  # seconds for anything to appear; generous, since time must not decide a test
# Chromium as root in a container needs --no-sandbox; the others keep it from calling home.
CHROMIUM = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
CHROMIUM += "--disable-component-update --disable-sync"
# Else JupyterLab takes cells out of the page that are not in view.
WHOLE_NOTEBOOK = '{"windowingMode": "none"}'
NOTEBOOK = ".jp-NotebookPanel:not(.lm-mod-hidden)"  # the one in view


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def server(folder, home):
    """`dgm start` in a student's folder, with settings of its own in `home`. Yields its address."""
    settings = home / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(WHOLE_NOTEBOOK)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    env = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER") and key != "MPLBACKEND"}
    env |= {"HOME": str(home), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "DGM_BUDGET": "smoke",
            "PYTHONPATH": str(folder), "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}  # fmt: skip
    command = [sys.executable, "-m", "autograder.cli", "start", "--no-browser", "--allow-root",
               f"--ServerApp.port={port}", "--IdentityProvider.token=", "--ServerApp.password="]  # fmt: skip
    with (home / "server.log").open("w") as log, subprocess.Popen(
        command, cwd=folder, env=env, stdout=log, stderr=log
    ) as process:  # fmt: skip
        try:
            until(lambda: process.poll() is not None or answers(address), "JupyterLab did not start")
            assert process.poll() is None, (home / "server.log").read_text()
            yield address
        finally:
            process.terminate()


def answers(address):
    """Whether a server answers."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/api", timeout=5) as reply:
        return reply.status == 200
    return False


def until(condition, failure):
    """Waits for a condition.

    Raises:
        TimeoutError: with the text of the failure.
    """
    end = time.monotonic() + WAIT
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(failure)
        time.sleep(0.2)
    return value


class Lab:
    """A page with JupyterLab. `pictures` is the folder for screenshots."""

    def __init__(self, page, address, pictures):
        self.page, self.address, self.pictures = page, address, pictures
        page.set_default_timeout(1000 * WAIT)

    def start_page(self):
        """Opens the page that `dgm start` leads to. Returns its text, once it is there."""
        self.page.goto(self.address)
        found = self.page.locator(".jp-MarkdownViewer", has_text="visible points so far")
        found.wait_for()
        return found.inner_text()

    def follow(self, link):
        """Clicks on a link of the start page, and waits for the notebook."""
        self.page.locator(".jp-MarkdownViewer a", has_text=link).click()
        self.notebook_ready()

    def notebook_ready(self):
        """Waits until the notebook in view has a kernel that waits for work."""
        self.page.wait_for_selector(f"{NOTEBOOK} .jp-Notebook .jp-Cell")
        self.idle()

    def idle(self):
        """Waits until the kernel has nothing to do."""
        self.page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()
        self.page.wait_for_selector(f"{NOTEBOOK} .jp-Notebook-ExecutionIndicator[data-status=idle]")

    def cell(self, number):
        """The cell of a number in the notebook in view."""
        return self.page.locator(f"{NOTEBOOK} .jp-Notebook .jp-Cell").nth(number)

    def type_into(self, number, text):
        """Replaces the source of a cell, as a person does who pastes."""
        self.cell(number).scroll_into_view_if_needed()
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)

    def menu(self, *items):
        """Chooses from the menu bar, e.g. "Run", "Run All Cells"."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=items[0]).first.click()
        self.page.locator(".lm-Menu-itemLabel", has_text=items[1]).first.click()

    def output(self, number, text):
        """Waits until the output of a cell holds a text. Returns the whole output."""
        found = self.cell(number).locator(".jp-OutputArea-output", has_text=text).first
        found.wait_for()
        return self.cell(number).locator(".jp-OutputArea").inner_text()

    def validate(self):
        """Presses nbgrader's button above the notebook. Returns the text of the dialogue, which is then closed."""
        self.page.locator(f"{NOTEBOOK} .jp-Toolbar-item", has_text="Validate").first.click()
        dialogue = self.page.locator(".jp-Dialog", has_text="Validation Results")
        dialogue.wait_for()
        found = dialogue.inner_text()
        self.picture("validated")
        dialogue.locator("button.jp-mod-accept").click()
        return found

    def picture(self, name, number=None):
        """Takes a picture of the window, with a cell in view."""
        if number is not None:
            self.cell(number).evaluate("cell => cell.scrollIntoView({block: 'center'})")
            self.page.wait_for_timeout(500)
        self.page.screenshot(path=self.pictures / f"{name}.png")


@contextlib.contextmanager
def chromium():
    """A page of headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM.split())
        try:
            yield browser.new_page(viewport={"width": 1200, "height": 1000})
        finally:
            browser.close()
