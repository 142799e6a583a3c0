"""The table of docs/explanation/reliability.md says what ran, and nothing else."""

from tests.conftest import ROOT
from tests.faults.reliability_table import BEGIN, END, HEAD, PAGE, ROWS, Tally, rewritten

KILLS, HOUR = ROWS[1], ROWS[-1]


def tallied(*tests: tuple[str, bool], **notes: int) -> Tally:
    tally = Tally()
    for test, passed in tests:
        tally.count(test, passed=passed, notes=notes.items())
    return tally


def test_the_page_has_the_rows_of_the_tally() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    assert table[:2] == HEAD.splitlines()
    assert [tuple(line.split(" | ")[:2]) for line in table[2:]] == [(f"| {row.fault}", row.must_hold) for row in ROWS]
    assert rewritten(page, {}) == page


def test_every_row_stands_for_tests_that_exist() -> None:
    for row in ROWS:
        for test in row.tests:
            path, _, name = test.partition("::")
            assert f"\ndef {name or 'test_'}" in (ROOT / path).read_text(encoding="utf-8"), test


def test_only_what_ran_is_counted_and_failures_are_not_held() -> None:
    test = "tests/faults/test_kills.py::test_killed_at_a_random_moment"
    tally = tallied((f"{test}[0]", True), (f"{test}[1]", False), ("tests/test_train.py::test_else", True), inside=3)
    lines = tally.lines()
    assert list(lines) == [KILLS]
    assert "| 2 (6 inside) | 1 |" in lines[KILLS]


def test_what_must_be_counted_is_missed() -> None:
    (test,) = KILLS.tests
    ran = ((f"{test}[0]", True), (f"{test}[1]", True))
    few, enough = (tallied(*ran, kills=25, **{"inside a save": n}) for n in (4, 5))
    assert few.missing() == [f"8 of at least 10 inside a save: {KILLS.fault}"]
    assert enough.missing() == []


def test_rows_that_did_not_run_stay_as_they_were() -> None:
    empty = f"before\n{BEGIN}\n{END}\nafter"
    first = rewritten(empty, tallied((HOUR.tests[0], True), minutes=60).lines())
    assert first.count("not yet") == len(ROWS) - 1
    second = rewritten(first, tallied((KILLS.tests[0], True)).lines())
    assert second.count("not yet") == len(ROWS) - 2
    assert "| 1 (60 minutes) | 1 |" in second
    assert second.startswith("before\n")
    assert second.endswith("\nafter")
