"""What TensorBoard shows of a sweep, in a real browser."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

from gpt_lightning.jsonl_reader import read_rows
from tests.browser.conftest import Visit
from tests.example_sweep import RATES

TRAINED = {*RATES, "longer"}
"""The others of the sweep are copies without TensorBoard's files."""


@pytest.fixture(scope="module")
def sweep_folder(browser: Browser, request: pytest.FixtureRequest) -> Path:
    """Only where there is a browser."""
    folder: Path = request.getfixturevalue("sweep")
    return folder


@pytest.fixture(scope="module")
def address(sweep_folder: Path) -> Iterator[str]:
    """Of TensorBoard, which serves the folder of a sweep."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(sweep_folder), "--port", str(port)]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + 90
        while served(url) != {f"{name}/tensorboard{row}" for name in TRAINED for row in ("", "/result")}:
            assert server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.3)
        yield url
        server.terminate()


def served(url: str) -> set[str]:
    """The runs that TensorBoard knows by now."""
    try:
        with urlopen(f"{url}/data/runs", timeout=10) as answer:
            return set(json.load(answer))
    except OSError:
        return set()


@pytest.fixture
def tensorboard(tab: Visit, address: str) -> Iterator[Visit]:
    """TensorBoard has warnings of its own; but it must ask nobody else, and no script may fail."""
    tab.forget(timeout=30_000)
    yield tab
    assert tab.strangers == []
    assert tab.failures == []


def table_of(page: Page) -> dict[str, dict[str, str]]:
    """The table of HPARAMS: of each run, what stands under the head of each column."""
    cells = page.locator("vaadin-grid").first.evaluate(
        """grid => grid._columnTree.at(-1).filter(column => !column.hidden).map(column => [
            column._headerCell._content.innerText.trim(), column._cells.map(cell => cell._content.innerText.trim())])"""
    )
    names = dict(cells)["Trial ID"]
    return {name: {head: column[n] for head, column in cells} for n, name in enumerate(names) if name}


def opened(visit: Visit, address: str, tab: str) -> Page:
    return visit.open(f"{address}/#{tab}")


def test_charts_stand_in_groups_with_the_curves_of_each_source(
    tensorboard: Visit, address: str, sweep_folder: Path
) -> None:
    page = opened(tensorboard, address, "custom_scalars")
    for group in ("validation by source", "training", "mix", "speed"):
        expect(page.locator("tf-category-paginated-view .heading", has_text=group).first).to_be_visible()
    card = page.locator("tf-custom-scalar-multi-line-chart-card").first
    expect(card).to_contain_text("perplexity")
    sources = [
        key.rpartition("/")[2]
        for key in read_rows(sweep_folder / "a" / "metrics.jsonl")[-1]
        if "val/perplexity/" in key
    ]
    expect(card).to_contain_text(f"Matches ({len(sources) * len(TRAINED)})")


def test_samples_can_be_read(tensorboard: Visit, address: str, sweep_folder: Path) -> None:
    page = opened(tensorboard, address, "text")
    sample = read_rows(sweep_folder / "a" / "samples.jsonl")[-1]
    words = max(f"{sample['prompt']}→{sample['response']}".split(), key=len)
    expect(page.locator("tf-text-loader", has_text=sample["prompt"].strip()).first).to_contain_text(words)


def test_hyperparameters_have_a_row_for_each_run(tensorboard: Visit, address: str, sweep_folder: Path) -> None:
    page = opened(tensorboard, address, "hparams")
    for name in TRAINED:
        expect(page.locator("vaadin-grid-cell-content", has_text=f"{name}/tensorboard/result").first).to_be_visible()
    table = page.locator("vaadin-grid").first
    for column in ("optimizer.lr", "seed", "result/loss"):  # without a tick anywhere
        expect(table.locator("vaadin-grid-cell-content", has_text=column).first).to_be_visible()
    rows = table_of(page)
    assert set(rows) == {f"{name}/tensorboard/result" for name in TRAINED}
    for name in TRAINED:
        config = yaml.safe_load((sweep_folder / name / "config.yaml").read_text())
        row = rows[f"{name}/tensorboard/result"]
        assert float(row["optimizer.lr"]) == pytest.approx(config["optimizer"]["lr"])
        assert float(row["seed"]) == config["seed"]
        last = read_rows(sweep_folder / name / "metrics.jsonl")[-1]
        assert float(row["result/loss"]) == pytest.approx(last["val/loss/mean"], rel=1e-3)
    expect(page.locator("tf-hparams-query-pane", has_text="optimizer.lr")).to_be_visible()
    expect(page.locator("tf-hparams-query-pane", has_text="callbacks.")).to_have_count(0)
