"""The page of a comparison, clicked through."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from analysis.comparison import Comparison, write_comparison_page
from running.commands.report import report
from tests.browser.conftest import Visit
from tests.example_sweep import HOSTILE, HOSTILE_NAME
from tests.synthetic_runs import finished


@pytest.fixture(scope="module")
def address(browser: Browser, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    sweep: Path = request.getfixturevalue("sweep")  # only where there is a browser
    page = tmp_path_factory.mktemp("page") / "comparison.html"
    report(
        {
            "log_dir": None,
            "mix_law": None,
            "runs": [str(sweep / "*"), str(sweep / "absent")],
            "out_dir": str(page.parent),
        }
    )
    return page.as_uri()


def column(page: Page, table: str, n: int) -> list[str]:
    """The texts of a column, as they stand."""
    return [cell.strip() for cell in page.locator(f"#{table} tbody td:nth-child({n})").all_inner_texts()]


def test_the_table_sorts_when_its_header_is_clicked(visit: Visit, address: str) -> None:
    page = visit.open(address)
    header = page.locator("#table-loss th", has_text="readmes")
    place = page.locator("#table-loss th").all_inner_texts().index(header.inner_text()) + 1
    for direction in ("ascending", "descending", "ascending"):
        header.click()
        values = [float(text.split()[0]) for text in column(page, "table-loss", place)]
        assert len(values) == 4
        assert values == sorted(values, reverse=direction == "descending")
        assert header.get_attribute("aria-sort") == direction
    page.locator("#table-loss th button", has_text="settings").press("Enter")  # as with a keyboard
    assert header.get_attribute("aria-sort") is None
    rates = [name.rpartition("lr=")[2] for name in column(page, "table-loss", 1)]
    assert rates == ["0.016", "0.001", "0.004", "0.016"]  # the first of them with a hostile setting before it
    assert len(page.locator("#table-loss td.best").all()) >= 5  # of each column one
    header = page.locator("#table-differences th", has_text="optimizer.lr")
    place = page.locator("#table-differences th").all_inner_texts().index(header.inner_text()) + 1
    header.click()
    rates = [float(text) for text in column(page, "table-differences", place)]
    assert rates == sorted(rates)
    assert rates[0] == 0.001
    assert rates[-1] == 0.016


@pytest.fixture(scope="module")
def ranked(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of runs whose losses are known: of three learning rates, with names that are sorted otherwise as text."""
    runs = []
    for rate, name, losses in (
        (0.001, "0.001", (3.5, 3.52)),
        (0.01, "0.01", (3.0, 3.02)),
        (1e-5, "1e-05", (3.03, 3.01)),
    ):
        for seed, loss in zip((9, 10), losses, strict=True):
            runs.append(finished(f"lr={name},seed={seed}", loss, seed=seed, **{"optimizer.lr": rate}))
    page = tmp_path_factory.mktemp("ranked") / "comparison.html"
    write_comparison_page(Comparison(runs), page, title="Comparison")
    return page.as_uri()


def test_numbers_in_names_and_verdicts_are_sorted_by_their_size(visit: Visit, ranked: str) -> None:
    page = visit.open(ranked)
    assert column(page, "table-loss", 1) == ["lr=0.01", "lr=1e-05", "lr=0.001"]  # by the mean, at first
    assert [text.split(",")[0] for text in column(page, "table-loss", 6)] == ["tied for best", "no", "yes"]
    page.locator("#table-loss th", has_text="settings").click()
    assert column(page, "table-loss", 1) == ["lr=1e-05", "lr=0.001", "lr=0.01"]
    page.locator("#table-loss th", has_text="more than noise?").click()
    assert [text.split(",")[0] for text in column(page, "table-loss", 6)] == ["yes", "no", "tied for best"]
    page.locator("#table-loss th", has_text="to the lowest").click()
    assert column(page, "table-loss", 5) == ["", "+0.0100", "+0.5000"]
    page.locator("#table-differences th", has_text="run").click()
    assert column(page, "table-differences", 1) == [
        f"lr={rate},seed={seed}" for rate in ("1e-05", "0.001", "0.01") for seed in (9, 10)
    ]


def test_on_a_narrow_screen_there_is_a_chart_a_row(visit: Visit, address: str) -> None:
    page = visit.open(address)
    boxes = """() => [...document.querySelectorAll("#loss-chart .annotation")].map(text => text.getBoundingClientRect())
                     .map(box => [box.left, box.top, box.right, box.bottom])"""
    (_, top, right, _), (left, below, _, _) = page.evaluate(boxes)
    assert (top, right < left) == (below, True)  # beside each other
    for width in (700, 400):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(f"() => document.querySelector('#loss-chart .main-svg').clientWidth < {width}")
        page.wait_for_function(f"() => {{ const [a, b] = ({boxes})(); return a[3] < b[1] }}")
        for left, _, right, _ in page.evaluate(boxes):
            assert 0 <= left < right <= width
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1400, "height": 900})
    page.wait_for_function(f"() => {{ const [a, b] = ({boxes})(); return a[1] === b[1] }}")


def test_the_axis_switch_changes_what_the_loss_is_drawn_against(visit: Visit, address: str) -> None:
    page = visit.open(address)
    traces = "() => document.getElementById('loss-chart').data.map(t => ({x: t.x, y: t.y, visible: t.visible}))"
    titles = "() => { const l = document.getElementById('loss-chart').layout; return [l.xaxis.title.text, l.xaxis2.title.text] }"
    at_first = page.evaluate(traces)
    assert page.evaluate(titles) == ["step", "step"]
    assert at_first[0]["x"] == [2, 4, 6, 8, 10, 12]
    tokens_per_step = 8 * 32
    for choice, title in (
        ("tokens", "training tokens"),
        ("flops", "FLOPs of training"),
        ("hours", "seconds of training only"),
    ):
        page.locator(f"input[name=axis][value={choice}]").check()
        page.wait_for_function(f"() => ({titles})()[0] === '{title}'")
        drawn = page.evaluate(traces)
        assert page.evaluate(titles) == [title, title]
        assert page.locator("#loss-chart .xtitle").text_content() == title
        assert [trace["y"] for trace in drawn] == [trace["y"] for trace in at_first]
        assert [trace["visible"] for trace in drawn] == [trace["visible"] for trace in at_first]
        if choice == "tokens":
            assert drawn[0]["x"] == [tokens_per_step * step for step in at_first[0]["x"]]
        if choice == "flops":
            assert drawn[0]["x"] == pytest.approx([drawn[0]["x"][-1] * step / 12 for step in at_first[0]["x"]])
            assert drawn[0]["x"][-1] > 6 * 512 * 32 * tokens_per_step * 12  # the embedding, which is the head, alone
        if choice == "hours":
            assert all(0 < x < 120 for x in drawn[0]["x"])
            assert drawn[0]["x"] == sorted(drawn[0]["x"])
    page.locator("input[name=axis][value=steps]").check()
    page.wait_for_function(f"() => ({titles})()[0] === 'step'")
    assert page.evaluate(traces) == at_first
    page.evaluate("() => Plotly.restyle('loss-chart', {visible: 'legendonly'}, [0])")
    page.locator("input[name=axis][value=tokens]").check()
    page.wait_for_function("() => document.getElementById('loss-chart').layout.xaxis.title.text !== 'step'")
    assert (
        page.evaluate("() => document.getElementById('loss-chart').data[0].visible") == "legendonly"
    )  # what was hidden stays so


def test_the_metric_switch_shows_one_table_and_charts_are_drawn(visit: Visit, address: str) -> None:
    page = visit.open(address)
    for kind in ("perplexity", "bits_per_byte", "loss"):
        page.locator(f"input[name=metric][value={kind}]").check()
        shown = {
            other: page.locator(f"#table-{other}").is_visible() for other in ("loss", "perplexity", "bits_per_byte")
        }
        assert shown == {other: other == kind for other in shown}
    assert page.locator("#loss-chart .scatterlayer .trace path.js-line").count() >= 10
    assert page.locator("#surface-0 .scatterlayer .point").count() >= 4
    assert "peak learning rate" in page.locator("#surface-0").inner_text()


def test_hostile_text_is_read_and_does_nothing(visit: Visit, address: str) -> None:
    page = visit.open(address)
    page.wait_for_timeout(100)  # as an event of an image that does not load would take
    assert page.evaluate("() => typeof hacked") == "undefined"
    assert page.locator("img").count() == 0
    assert page.locator("#sample-cards").is_visible()
    texts = page.locator("#sample-cards pre").all_text_contents()
    assert HOSTILE + "\nseen" in texts
    assert page.locator(".prompt").all_text_contents().count(HOSTILE) == 1
    assert HOSTILE_NAME in column(page, "table-differences", 1)
    assert any("</script>" in text for text in page.locator("#loss-chart .legendtext").all_text_contents())


def test_samples_follow_the_step(visit: Visit, address: str) -> None:
    page = visit.open(address)
    assert page.locator("#sample-step").input_value() == "12"
    late = page.locator("#sample-cards pre").all_text_contents()
    page.locator("#sample-step").select_option("6")
    early = page.locator("#sample-cards pre").all_text_contents()
    assert early
    assert early != late


def test_the_watch_notices(unwatched: Visit, tmp_path: Path) -> None:
    """A request for a neighbour, a warning and an exception are not overlooked."""
    file = tmp_path / "comparison.html"
    file.write_text(
        "<img src='neighbour.png'><script>console.warn('hm'); setTimeout(() => { throw Error('oh') })</script>"
    )
    page = unwatched.open(file.as_uri())
    page.wait_for_timeout(100)
    assert unwatched.strangers == [(tmp_path / "neighbour.png").as_uri()]
    assert "hm" in unwatched.complaints
    assert any("oh" in complaint for complaint in unwatched.complaints)
