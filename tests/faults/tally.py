"""The table of docs/reliability.md: its rows, the tests that each of them stands for, and how many of those ran and held."""

import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- written by make soak -->", "<!-- end of what make soak writes -->"
HEAD = "| fault | must hold | ran | held | when |\n| --- | --- | ---: | ---: | --- |\n"


class Row(NamedTuple):
    """A line of the table."""

    fault: str
    must_hold: str
    tests: tuple[str, ...]
    """Beginnings of the node ids of its tests, each of which is one that ran."""


ROWS = (
    Row(
        "SIGKILL at 50 random moments, at least 10 of them inside a save",
        "it resumes, repeats nothing but the steps since the last save, and its final state is equal",
        ("tests/faults/test_kills.py::test_killed",),
    ),
    Row(
        "an hour of preemption on a micro run: a SIGKILL, SIGTERM or SIGINT every 20 to 60 s",
        "final state equal to the undisturbed run",
        ("tests/faults/test_preemption.py::test_an_hour",),
    ),
)


@dataclass
class Tally:
    """What ran in a session."""

    commit: str = field(default_factory=lambda: revision())
    ran: Counter[Row] = field(default_factory=Counter)
    held: Counter[Row] = field(default_factory=Counter)
    notes: dict[Row, Counter[str]] = field(default_factory=dict)

    def count(self, test: str, *, passed: bool, notes: Iterable[tuple[str, object]]) -> None:
        """Book one test on its row, with the numbers that it recorded as properties."""
        for row in ROWS:
            if test.startswith(row.tests):
                self.ran[row] += 1
                self.held[row] += passed
                numbers = self.notes.setdefault(row, Counter())
                for name, number in notes:
                    assert isinstance(number, int)
                    numbers[name] += number

    def lines(self) -> dict[Row, str]:
        """The new line of each row that ran."""
        commit = self.commit if revision() == self.commit else f"{self.commit}, edited under way"
        when = f"{time.strftime('%Y-%m-%d')}, {commit}"
        return {row: self._line(row, when) for row in ROWS if self.ran[row]}

    def _line(self, row: Row, when: str) -> str:
        notes = ", ".join(f"{number:,} {name}" for name, number in self.notes[row].items())
        ran = f"{self.ran[row]:,}" + (f" ({notes})" if notes else "")
        return f"| {row.fault} | {row.must_hold} | {ran} | {self.held[row]:,} | {when} |"


def rewritten(page: str, lines: Mapping[Row, str]) -> str:
    """The page with the lines of what has just run; those of other rows stay as they were."""
    before, _, rest = page.partition(BEGIN)
    table, _, after = rest.partition(END)
    old = {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()}
    never = "| {0.fault} | {0.must_hold} | | | not yet |"
    rows = [lines.get(row) or old.get(row.fault) or never.format(row) for row in ROWS]
    return f"{before}{BEGIN}\n{HEAD}" + "\n".join(rows) + f"\n{END}{after}"


def revision() -> str:
    """The commit that is checked out, and whether anything but the page is edited."""
    git = ("git", "-C", str(ROOT))
    commit = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False)
    edited = subprocess.run(
        [*git, "status", "--porcelain", "--", ".", ":!docs/reliability.md"],
        capture_output=True,
        text=True,
        check=False,
    )
    return (commit.stdout.strip() or "no commit") + (" with edits" if edited.stdout.strip() else "")
