"""Pages in a real browser: Debian's chromium, headless, whose every request and complaint is noted."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

_OWN = ("data", "about", "blob")  # schemes of what a page makes itself
SIZE = ViewportSize(width=1400, height=1000)
_HERE = ("127.0.0.1", "localhost")


class Visit:
    """A tab of the browser.

    Args:
        page: the tab, as playwright has it.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.strangers: list[str] = []
        """Requests for anything but what was opened, data of the page's own, and the server on this machine that it is from."""
        self.complaints: list[str] = []
        """Errors and warnings of the console, and exceptions that nobody caught."""
        self.failures: list[str] = []
        """The same without the warnings."""
        self._address = ""
        page.on("request", lambda request: self._note(request.url))
        page.on("console", lambda message: self._hear(message.text, message.type))
        page.on("pageerror", lambda error: self._hear(str(error), "error"))

    def open(self, address: str) -> Page:
        """Load file:///… or http://127.0.0.1:…, and wait until it is there."""
        self._address = address
        self.page.goto(address, wait_until="load")
        return self.page

    def forget(self, *, timeout: float) -> None:
        """Forget what was noted, for the next test.

        Args:
            timeout: milliseconds that an action on the page may take.
        """
        for noted in (self.strangers, self.complaints, self.failures):
            noted.clear()
        self.page.set_viewport_size(SIZE)
        self.page.set_default_timeout(timeout)

    def _hear(self, text: str, kind: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)
        if kind == "error":
            self.failures.append(text)

    def _note(self, url: str) -> None:
        asked, own = urlsplit(url), urlsplit(self._address)
        served = own.hostname in _HERE and (asked.hostname, asked.port) == (own.hostname, own.port)
        if asked.scheme not in _OWN and not served and url.partition("#")[0] != self._address.partition("#")[0]:
            self.strangers.append(url)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One for all tests of this folder; playwright's event loop must not outlive them."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    expect.set_options(timeout=30_000)  # the machine may be busy
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


@contextmanager
def opened_tab(browser: Browser) -> Iterator[Visit]:
    """A new tab, with a cache of its own."""
    context = browser.new_context(viewport=SIZE)
    context.set_default_timeout(15_000)
    yield Visit(context.new_page())
    context.close()


@pytest.fixture
def unwatched(browser: Browser) -> Iterator[Visit]:
    """A tab whose page may complain."""
    with opened_tab(browser) as tab:
        yield tab


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Visit]:
    """The tab of `visit`. In a new one each script of a page would be compiled again, which takes seconds."""
    with opened_tab(browser) as tab:
        yield tab


@pytest.fixture
def visit(tab: Visit) -> Iterator[Visit]:
    """A tab; at the test's end its page must have asked nobody for anything, and complained of nothing."""
    tab.forget(timeout=15_000)
    yield tab
    assert tab.strangers == []
    assert tab.complaints == []
