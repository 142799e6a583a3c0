"""Pages in a real browser: Debian's chromium, headless, whose every request and complaint is noted."""

import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

_OWN = ("data", "about", "blob")  # schemes of what a page makes itself
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
        self._address = ""
        page.on("request", lambda request: self._note(request.url))
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, address: str) -> Page:
        """Load file:///… or http://127.0.0.1:…, and wait until it is there."""
        self._address = address
        self.page.goto(address, wait_until="load")
        return self.page

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


@pytest.fixture
def unwatched(browser: Browser) -> Iterator[Visit]:
    """A tab whose page may complain."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(15_000)
    yield Visit(context.new_page())
    context.close()


@pytest.fixture
def visit(unwatched: Visit) -> Iterator[Visit]:
    """A tab; at the test's end its page must have asked nobody for anything, and complained of nothing."""
    yield unwatched
    assert unwatched.strangers == []
    assert unwatched.complaints == []
