"""What the page and the terminal say of a comparison whose verdicts are known."""

import dataclasses
import html
import math
import re
from pathlib import Path

import pytest
from rich.console import Console

from analysis.comparison import Comparison, standings_table, verdict_sentence, write_comparison_page
from analysis.comparison.comparison_report import MOST_SHOWN
from analysis.comparison.missing_sweep_jobs import missing_jobs
from analysis.comparison.run import Run
from analysis.comparison.sortable_html_tables import sort_keys
from analysis.comparison.verdict_text import seed_noise_sentences
from analysis.metrics_reader import LoggedMetrics
from running.commands.report import report
from running.sweeps.sweep_state import SweepState
from tests.synthetic_runs import finished

LOSSES = {0.01: (3.03, 3.01), 0.002: (3.0, 3.02), 0.001: (3.5, 3.52), 0.05: (math.nan, math.nan)}
"""Of each learning rate and seed: the second is the best, the first cannot be told from it, the third is worse."""


def known() -> list[Run]:
    return [
        finished(f"runs/lr={rate},seed={seed}", loss, seed=seed, log_every=5 * seed, **{"optimizer.lr": rate})
        for rate, losses in LOSSES.items()
        for seed, loss in enumerate(losses)
    ]


def written(runs: list[Run], folder: Path) -> str:
    write_comparison_page(Comparison(runs), folder / "comparison.html", title="Comparison")
    return (folder / "comparison.html").read_text(encoding="utf-8").split("<script", 1)[0]


def cells(page: str, table: str) -> list[list[str]]:
    """The texts of a table's cells, its heads first, without spaces."""
    (content,) = re.findall(rf'id="table-{table}">(.*?)</table>', page, re.DOTALL)
    rows = [re.split(r"</t[hd]>", row)[:-1] for row in re.findall(r"<tr>(.*?)</tr>", content, re.DOTALL)]
    return [["".join(html.unescape(re.sub(r"<[^>]+>", "", cell)).split()) for cell in row] for row in rows]


def test_the_table_says_who_is_best_and_who_is_more_than_noise_away(tmp_path: Path) -> None:
    page = written(known(), tmp_path)
    heads, *rows = cells(page, "loss")
    assert heads == ["settings", "runs", "mean", "±perrun", "tothelowest", "morethannoise?", "c4"]
    assert [row[0] for row in rows] == ["lr=0.002", "lr=0.01", "lr=0.001", "lr=0.05"]
    assert [row[1] for row in rows] == ["2seeds"] * 4
    assert [row[2] for row in rows] == ["3.0100", "3.0200", "3.5100", "notfinite"]
    assert [row[3] for row in rows] == ["0.0141", "0.0141", "0.0141", ""]
    assert [row[4] for row in rows] == ["", "+0.0100", "+0.5000", ""]
    assert [re.split("[,=<]", row[5])[0] for row in rows] == ["tiedforbest", "no", "yes", "notfinite"]
    assert [row[6] for row in rows] == ["3.0100", "3.0200+0.0100≈", "3.5100+0.5000≠", "notfinite"]
    assert (
        "lr=0.002 and lr=0.01 are tied for best: their differences are not significant; the other is worse; 1 diverged."
        in page
    )
    best = re.findall('class="number best" data-value="([^"]*)"', page)
    assert [round(float(value), 4) for value in best[:4]] == [3.01, 3.01, 3.02, 3.02]
    _, *rows = cells(page, "perplexity")
    assert [re.split("[,=<]", row[5])[0] for row in rows] == ["tiedforbest", "no", "yes", "notfinite"]


def test_the_page_says_of_what_model_its_noise_is(tmp_path: Path) -> None:
    page = written(known(), tmp_path)
    assert "Paired by seed: 3 settings \N{MULTIPLICATION SIGN} 2 seeds, standard deviation of the residual" in page
    assert "2 degrees of freedom" in page
    apart = []
    for rate, seed in ((1, 10), (1, 11), (2, 20), (2, 21)):
        apart.append(finished(f"{rate} {seed}", 3 + rate + seed / 99, seed=seed, **{"optimizer.lr": rate}))
    assert seed_noise_sentences(Comparison(apart))[0].startswith(
        "Not paired: 4 runs of 2 settings with 4 seeds, standard"
    )
    (unknown, _) = seed_noise_sentences(Comparison(apart[::2]))
    assert unknown == "The noise between seeds is unknown: no two runs differ only in their seed."
    one = seed_noise_sentences(Comparison([*apart[:2], apart[2]]))
    assert "1 degree of freedom" in one[0]


def test_what_differs_comes_first_and_what_is_set_apart_before_it(tmp_path: Path) -> None:
    page = written([*known(), finished("runs/longer", 2.0, max_steps=11)], tmp_path)
    marks = [
        "<h1>",
        "Excluded or unfinished runs",
        "What differs",
        "<h2>Loss",
        "<h2>Final metrics",
        "<h2>Response surfaces",
        "<h2>Samples",
    ]
    assert [page.count(mark) for mark in marks] == [1] * len(marks)
    assert [page.index(mark) for mark in marks] == sorted(page.index(mark) for mark in marks)
    _, longer = cells(page, "flagged")
    assert longer[:3] == ["runs/longer", "done", "notcompared"]
    assert "differentschedulelength(11steps,not10)" in longer[3]
    heads, *rows = cells(page, "differences")
    assert heads == ["run", "seed", "optimizer.lr", "log_every"]
    assert rows[0] == ["runs/lr=0.01,seed=0", "0", "0.01", "0"]
    assert len(rows) == 8


def test_texts_are_sorted_by_the_numbers_in_them() -> None:
    names = [
        "lr=0.01",
        "lr=0.001",
        "lr=1e-05",
        "lr=0.002, seed=10",
        "lr=0.002, seed=9",
        "lr=-1",
        "—",
        "constant",
        "LR=0.0005",
    ]
    order = sorted((name for name in names if name != "—"), key=lambda name: int(sort_keys(names)[names.index(name)]))
    assert order == [
        "constant",
        "lr=-1",
        "lr=1e-05",
        "LR=0.0005",
        "lr=0.001",
        "lr=0.002, seed=9",
        "lr=0.002, seed=10",
        "lr=0.01",
    ]
    assert sort_keys(names)[names.index("—")] == ""
    assert sort_keys(["2", "10", "2"]) == ["0", "1", "0"]


def test_the_terminal_says_what_the_page_says() -> None:
    console = Console(width=100, markup=False)
    with console.capture() as capture:
        console.print(standings_table(Comparison(known())))
    lines = [re.split("  +", line.strip()) for line in capture.get().splitlines()]
    assert [line[0] for line in lines] == ["settings", "lr=0.002", "lr=0.01", "lr=0.001", "lr=0.05"]
    assert lines[1][1:] == ["3.0100", "0.0141", "2 seeds", "tied for best"]
    assert lines[2][1:5] == ["3.0200", "0.0141", "2 seeds", "+0.0100"]
    assert [line[-1].split(",")[0] for line in lines[2:4]] == ["no", "yes"]


def test_of_many_candidates_the_terminal_shows_the_first() -> None:
    many = Comparison([finished(f"[red]{n}", 3 + n / 10, words=f"[red]{n:02}") for n in range(MOST_SHOWN + 3)])
    console = Console(width=100, markup=False)
    with console.capture() as capture:
        console.print(standings_table(many))
    lines = capture.get().splitlines()
    assert len(lines) == 1 + MOST_SHOWN + 1
    assert lines[1].startswith("words=[red]00")
    assert lines[-1].strip() == "… and 3 more on the page"


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ({1: (3.0,)}, " is the only one that is ranked."),
        ({1: (3.0, 3.1), 2: (math.inf, 3.0)}, "lr=1 is the only one with a finite loss; 1 diverged."),
        ({1: (3.0,), 2: (4.0,)}, "lr=1 has the lowest loss; whether the difference is significant is unknown."),
        ({1: (3.0, 3.01, 3.02), 2: (4.0, 4.01, 4.021)}, "lr=1 is best; all others are worse."),
        (
            {1: (3.0, 3.1, 3.05), 2: (3.05, 3.0, 3.11)},
            "lr=1 and lr=2 are tied for best: their differences are not significant.",
        ),
        (
            {1: (3.0, 3.1, 3.05), 2: (3.05, 3.0, 3.11), 3: (3.06, 3.0, 3.1), 4: (3.0, 3.1, 3.08), 5: (9.0, 9.0, 9.1)},
            "lr=1, lr=2 and 2 more are tied for best: their differences are not significant; the other is worse.",
        ),
    ],
)
def test_the_verdict_is_a_sentence(losses: dict[int, tuple[float, ...]], said: str) -> None:
    runs = []
    for rate, row in losses.items():
        runs += [finished(f"{rate} {n}", loss, seed=n, **{"optimizer.lr": rate}) for n, loss in enumerate(row)]
    name = "" if len(losses) > 1 else Comparison(runs).candidates[0].name
    assert verdict_sentence(Comparison(runs)) == name + said


def test_seeds_of_one_setting_are_called_by_none_of_them() -> None:
    runs = [finished(f"{n}", loss, seed=n) for n, loss in enumerate((3.0, 3.1, 3.2))]
    assert verdict_sentence(Comparison(runs)) == (
        "3 runs of one setting: a loss of 3.1000, with a standard deviation of 0.1000 between seeds; there is no other "
        "setting to compare "
        "it with."
    )


def test_the_first_steps_are_only_said_to_lie_above_where_they_do(tmp_path: Path) -> None:
    run = finished("a", 3.0, max_steps=100)
    for early, said in ((10.0, True), (3.0, False)):
        rows = [{"step": step, "train/loss": early if step < 3 else 3.0} for step in range(1, 101)]
        page = written([dataclasses.replace(run, metrics=LoggedMetrics(rows))], tmp_path)
        assert ("lie above the chart" in page) is said


def test_the_report_prints_which_jobs_of_a_sweep_are_missing(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = SweepState(tmp_path)
    (tmp_path / ".jobs").mkdir()
    record.clear(n_jobs=6)
    for n, (name, code) in enumerate([("a", 0), ("b", 0), ("c", 1), ("lr=-1", 1), ("d", None)]):
        record.write(
            n, name, code=code, other_run="its folder contains a run with other settings" if name == "c" else None
        )
        if name != "lr=-1":
            (tmp_path / name).symlink_to(sweep / name)
    said = (
        "3 of 6 jobs are missing: c was refused, its folder contains a run with other settings; lr=-1 ended with exit code 1; "
        "1 never started\n"
    )
    for runs, is_said in ((tmp_path, True), (tmp_path / "*", True), (tmp_path / "[ab]", False)):
        report({"log_dir": None, "mix_law": None, "runs": str(runs), "out_dir": None})
        assert (said in capsys.readouterr().out) is is_said
    record.clear()
    for n in range(5):
        record.write(n, f"lr=-{n}", code=1)
    (line,) = missing_jobs([str(tmp_path)])
    assert line.startswith("5 of 5 jobs are missing: lr=-0 ended with exit code 1; lr=-1 ")
    assert line.endswith("; 2 more that started")


def test_the_report_prints_the_reference_where_a_run_is_set_apart(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(sweep / name) for name in ("longer", "a", "b")]
    report({"log_dir": None, "mix_law": None, "runs": runs, "out_dir": str(tmp_path)})
    said = "the reference is a: 2 of the 3 finished runs share its tokenizer, validation data, token budget and schedule length"
    assert said in capsys.readouterr().out


def test_the_report_prints_how_they_stand(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweep" / "notes").mkdir(parents=True)
    for name in "ab":
        (tmp_path / "sweep" / name).symlink_to(sweep / name)
    report({"log_dir": None, "mix_law": None, "runs": str(tmp_path / "sweep" / "*"), "out_dir": None})
    out = capsys.readouterr().out
    assert out.startswith("1 folder is not a run and was skipped\n2 of 2 runs are ranked\nsettings")
    assert (
        "Not paired: 1 setting \N{MULTIPLICATION SIGN} 2 seeds, standard deviation of a run around the mean of its setting"
        in out
    )
    assert "2 runs of one setting: a loss of " in out
    assert out.endswith(f"comparison:  {tmp_path / 'sweep' / 'comparison.html'}\n")
