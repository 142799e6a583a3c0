"""The page of one run, opened."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from analysis.run_reader import LoggedRun
from running.commands.report import report
from running.config.compose import compose_config
from tests.browser.conftest import Visit


@pytest.fixture(scope="module")
def run(browser: Browser, request: pytest.FixtureRequest) -> LoggedRun:
    """One of the sweep's, reported; only where there is a browser."""
    sweep: Path = request.getfixturevalue("sweep")
    report(compose_config("report", [f"run={sweep / 'a'}"]))
    return LoggedRun(sweep / "a")


def test_it_stands_alone_with_pictures_and_samples(visit: Visit, run: LoggedRun) -> None:
    page = visit.open((run.path / "report" / "report.html").as_uri())
    assert page.title() == run.title
    widths = page.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(widths) == 3
    assert all(width > 1000 for width in widths)
    mean = f"{run.metrics.last('val/loss/mean'):.4f}"
    assert mean in page.locator("h2:has-text('Validation') + table").inner_text()
    responses = next(iter(run.responses.values()))
    earlier = page.locator("details", has_text="earlier").first
    assert not earlier.locator("pre").first.is_visible()
    earlier.locator("summary").click()
    assert earlier.locator("pre").first.is_visible()
    assert earlier.locator("pre").count() == len(responses) - 1
    assert page.locator("script").count() == 0
