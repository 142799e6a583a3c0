"""The documentation as a site: built, opened, searched."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Visit
from tests.conftest import ROOT

PAGES = (
    *("index", "start", "speed", "troubleshooting", "tutorials/sweep", "howto/corpora", "recipes/optimizers"),
    *("reference/index", "reference/api", "reference/settings/train", "reference/settings/curriculum"),
    *("explanation/study", "explanation/reliability"),
)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Its lines would stand among those of the tests."""


@pytest.fixture(scope="module")
def site(browser: Browser) -> Path:
    """What `make docs` builds; only where there is a browser."""
    for package in ("zensical", "mkdocstrings"):
        pytest.importorskip(package, reason=f"there is no {package} here: pip install -e '.[docs]'")
    build = [sys.executable, "-m", "documentation"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "site"


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Of a server on this machine that has the site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_nobody_and_complains_of_nothing(visit: Visit, address: str, name: str) -> None:
    page = visit.open(f"{address}/{name}.html")
    assert page.locator("h1").inner_text()
    widths = page.locator("article img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert all(width > 300 for width in widths)
    text = page.locator("article").inner_text()
    assert "<!--" not in text
    assert "| ---" not in text  # a table that was not taken for one
    assert ":::" not in text


def test_every_setting_of_train_is_in_the_reference(visit: Visit, address: str) -> None:
    page = visit.open(f"{address}/reference/settings/train.html")
    row = page.locator("tr", has_text="global_batch").first
    assert "Sequences per optimizer step" in row.inner_text()
    page.locator("article a", has_text="curriculum").first.click()
    expect(page.locator("h1")).to_contain_text("curriculum")


def test_the_api_comes_from_docstrings(visit: Visit, address: str) -> None:
    page = visit.open(f"{address}/reference/api.html")
    for name in ("load_model", "Sampling", "GPTConfig", "Curriculum", "MixLaw"):
        assert page.locator(f"h3:has-text('{name}'), h4:has-text('{name}')").count(), name
    assert "Parameters:" in page.locator("article").inner_text()


@pytest.mark.parametrize("served", [True, False], ids=["from a server", "from the file system"])
def test_search_finds_a_page(unwatched: Visit, site: Path, request: pytest.FixtureRequest, served: bool) -> None:
    here = request.getfixturevalue("address") if served else site.as_uri()
    page = unwatched.open(f"{here}/start.html")
    box = page.get_by_role("combobox", name="Search")
    for _ in range(20):  # until the page's script listens to the keyboard
        page.keyboard.press("Control+k")
        if box.is_visible():
            break
        page.wait_for_timeout(1_000)
    box.fill("manifest checkpoint")
    result = page.locator("a:visible", has_text="What it resumes from").first
    expect(result).to_be_visible(timeout=20_000)
    page.keyboard.press("Enter")
    page.wait_for_url("**/explanation/reliability.html*")
    assert [url for url in unwatched.strangers if not url.startswith(here)] == []
    assert [said for said in unwatched.complaints if "Autofocus" not in said] == []
