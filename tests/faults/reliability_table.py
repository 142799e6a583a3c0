"""The table of docs/explanation/reliability.md: its rows, the tests that each stands for, and how many of those ran and held."""

import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "reliability.md"
BEGIN, END = "<!-- written by make soak -->", "<!-- end of what make soak writes -->"
HEAD = "| fault | must hold | ran | held | when |\n| --- | --- | ---: | ---: | --- |\n"


class Row(NamedTuple):
    """A line of the table."""

    fault: str
    must_hold: str
    tests: tuple[str, ...]
    """Beginnings of the node ids of its tests, each of which is one that ran."""
    at_least: tuple[tuple[str, int], ...] = ()
    """What its tests must have counted together for the row to hold."""


ROWS = (
    Row(
        "a stop at each step of a 40-step run; three stops in one run",
        "weights, optimizer state, random states, learning rate and data log are equal, bit for bit",
        ("tests/faults/test_stops.py::test_stopped_", "tests/faults/test_kills.py::test_random_numbers_"),
    ),
    Row(
        "SIGKILL at 50 random moments, at least 10 of them during a save",
        "the run resumes, only the steps since the last save are repeated, and the final state is equal",
        ("tests/faults/test_kills.py::test_killed_",),
        (("kills", 50), ("inside a save", 10)),
    ),
    Row(
        "SIGKILL at 25 random moments of a run with `data.workers=2`, and at 25 of a sweep with two parallel jobs",
        "no process is left after 10 s, and the final state is equal",
        ("tests/faults/test_kills.py::test_no_process_",),
        (("kills", 50),),
    ),
    Row(
        "SIGKILL before each file operation of a save, in the middle of a write, and with `TMPDIR` on another "
        "file system; renames undone, as a power failure could do",
        "a valid checkpoint always exists, temporary files are removed at the next start, and the final state is equal",
        ("tests/faults/test_saves.py::",),
    ),
    Row(
        "SIGTERM at 20 random micro-batches on one rank, and at 20 on two ranks, to one or both",
        "exit code 143 within 30 s on every rank, no step is repeated, and the final state is equal",
        ("tests/faults/test_stops.py::test_sigterm_",),
    ),
    Row(
        "SIGINT; SIGUSR1; a signal to the whole process group with workers; a second signal; `max_hours`",
        "exit codes: SIGINT 130, SIGUSR1 143, process group with workers 143, `max_hours` 75; a second "
        "signal ends the process at once; the final state is equal",
        (
            "tests/faults/test_stops.py::test_other_signals_",
            "tests/faults/test_stops.py::test_a_",
            "tests/faults/test_stops.py::test_max_hours_",
            "tests/faults/test_stops.py::test_the_program_",
            "tests/faults/test_stops.py::test_two_ranks_",
        ),
    ),
    Row(
        "newest checkpoint truncated to 0, 1, 50 or 99 %, with a changed or an additional byte, or with a "
        "missing, empty or wrong manifest; the two newest damaged; all three damaged",
        "the run uses an older checkpoint and says so; without a valid one it does not start, and never begins at"
        " step 0",
        ("tests/faults/test_damage.py::",),
    ),
    Row(
        "disk full while saving, sampling or logging, at the start, or on two ranks; a limit on file size",
        "older checkpoints are unchanged, the run continues, exit code 74 after 3 failed saves, and the final "
        "state is equal once there is space",
        ("tests/faults/test_disk.py::",),
    ),
    Row(
        "1,000 steps, and a resume from the oldest kept checkpoint",
        "exactly 3 valid checkpoints and no other file, and the final state is equal",
        ("tests/faults/test_long_runs.py::test_the_oldest_", "tests/faults/test_long_runs.py::test_a_run_"),
    ),
    Row(
        "token shard with a flipped byte, truncated, of odd length, or with an id outside the vocabulary; a shard"
        " added, renamed or replaced since the checkpoint",
        "error before step 0 that names file and offset; `data.verify=false` skips the full check, but still "
        "refuses shards that changed since the run started",
        ("tests/test_damaged_data.py::", "tests/data_modules/shards/test_shard_integrity.py::"),
    ),
    Row(
        "NaN or infinity in a loss or a gradient at step 17, also on one of two ranks; a spike with `on_spike=skip`",
        "all ranks stop before the update with exit code 65, the step's sequences are listed, and a restart without the "
        "fault ends in the same final state; a step with a spike changes no weights",
        ("tests/faults/test_not_finite.py::",),
    ),
    Row(
        "a run killed on 2 ranks and resumed on 1 and 2; FSDP from 2 ranks to 1, and to DDP and back",
        "the data log is identical, losses are within 1e-5, weights within rounding; with the same number of "
        "ranks the bits are equal",
        (
            "tests/faults/test_ranks.py::test_killed_",
            "tests/faults/test_ranks.py::test_on_equally_many_",
            "tests/faults/test_ranks.py::test_a_sharded_",
            "tests/test_elastic.py::",
            "tests/test_fsdp.py::",
        ),
    ),
    Row(
        "one of two ranks is killed",
        "the other rank ends within 60 s with an exit code other than 0, the run resumes, and the final state is equal",
        ("tests/faults/test_ranks.py::test_a_rank_that_dies_",),
    ),
    Row(
        "two and eight processes in one directory; the process that holds the lock is stopped or killed",
        "the second process ends within 2 s with a message that names host and process, the first is not "
        "affected; the lock of a dead process is taken over",
        ("tests/faults/test_owners.py::",),
    ),
    Row(
        "validation, sampling and logging off, on, or at each step",
        "weights, optimizer state, schedule, random states and data are equal, bit for bit",
        ("tests/faults/test_long_runs.py::test_watchers_",),
    ),
    Row(
        "malicious checkpoint, malicious config",
        "error, and the payload has not run",
        (
            "tests/faults/test_malice.py::",
            "tests/test_security.py::",
            "tests/test_malicious_files.py::",
            "tests/test_malicious_sources.py::",
            "tests/gpt_lightning/test_checkpoint.py::test_code_in_a_file_never_runs",
        ),
    ),
    Row(
        "an hour of preemption of a micro run: SIGKILL, SIGTERM or SIGINT every 20 to 60 s",
        "the final state equals that of the undisturbed run",
        ("tests/faults/test_preemption.py::test_an_hour_",),
        (("stops and kills", 70), ("minutes", 55)),
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

    def missing(self) -> list[str]:
        """What the tests of a row, of those that ran, have not counted often enough for it to hold."""
        return [
            f"{self.notes[row][name]} of at least {number} {name}: {row.fault}"
            for row in ROWS
            if self.ran[row]
            for name, number in row.at_least
            if self.notes[row][name] < number
        ]

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
        [*git, "status", "--porcelain", "--", ".", ":!docs/explanation/reliability.md"],
        capture_output=True,
        text=True,
        check=False,
    )
    return (commit.stdout.strip() or "no commit") + (" with edits" if edited.stdout.strip() else "")


if __name__ == "__main__":  # what make soak runs
    files = dict.fromkeys(test.partition("::")[0] for row in ROWS for test in row.tests)
    print("tests/faults", *(file for file in files if not file.startswith("tests/faults/")))
