"""The page of a mix law, opened."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from mix_laws import MixRuns, SearchTarget, find_best_mix, fit_mix_law, write_mix_law_page
from tests.browser.conftest import Visit
from tests.example_sweep import HOSTILE_NAME
from tests.synthetic_mix_runs import runs_of, world


@pytest.fixture(scope="module")
def address(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of twenty runs in a known world, one with a name that would run something if it could."""
    ratios, losses = runs_of(world(), 20)
    sources = ("readmes", "stdlib", "pydoc", HOSTILE_NAME)
    runs = MixRuns(tuple(map(str, range(20))), sources, sources, ratios, losses, left_out=("21: running",))
    law = fit_mix_law(ratios, losses)
    aim = SearchTarget(np.full(4, 0.25), ratios.mean(axis=0), np.array([0.3, 1, 1, 1]), 0.01)
    page: Path = tmp_path_factory.mktemp("page") / "mix_law.html"
    write_mix_law_page(runs, law, find_best_mix(law, aim), page, title="Mix law of 20 runs")
    return page.as_uri()


def test_it_stands_alone_with_verdict_tables_and_pictures(visit: Visit, address: str) -> None:
    page = visit.open(address)
    assert page.title() == "Mix law of 20 runs"
    widths = page.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(widths) == 3
    assert all(width > 800 for width in widths)
    text = page.locator("body").inner_text()
    assert "less than a linear fit (p" in text
    assert "21: running" in text
    assert HOSTILE_NAME in text
    assert page.evaluate("() => typeof hacked") == "undefined"
    assert len(page.locator("table").all()) == 2
    assert page.locator("script").count() == 0
