"""The nursery, runs that can be disturbed, and runs that nobody disturbs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.disturbed_runs import SMALL_RUN, SOAK, Run
from tests.faults.reliability_table import PAGE, Tally, rewritten
from tests.faults.training_processes import Nursery

pytest.register_assert_rewrite("tests.faults.bit_equality")


def pytest_configure(config: pytest.Config) -> None:
    if SOAK:
        config.pluginmanager.register(Counting())


class Counting:
    """Counts the tests of every folder, where hooks of a conftest hear of its own folder's alone."""

    def __init__(self) -> None:
        self.tally = Tally()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report: pytest.TestReport = yield
        if not report.skipped and (report.when == "call" or report.failed):
            self.tally.count(item.nodeid, passed=report.passed, notes=report.user_properties)
        return report

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if missing := self.tally.missing():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            print("", *missing, sep="\nFAILED: ")
        PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), self.tally.lines()), encoding="utf-8")


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def new_run(nursery: Nursery, tiny_data: Path, tmp_path: Path) -> Callable[..., Run]:
    """`new_run("a=1", …, ranks=2)`: a run of 40 steps in a folder of its own, not yet begun."""
    runs = []

    def new(*overrides: str, ranks: int = 1) -> Run:
        runs.append(
            Run(nursery, tmp_path / str(len(runs)), [*SMALL_RUN, f"data_dir={tiny_data}", *overrides], ranks=ranks)
        )
        return runs[-1]

    return new


@pytest.fixture(scope="session")
def straight(nursery: Nursery, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """`straight("a=1", …, ranks=2)`: the same run in one go; each is run once a session."""
    done: dict[tuple[tuple[str, ...], int, str], Run] = {}

    def undisturbed(*overrides: str, ranks: int = 1, strategy: str = "ddp") -> Run:
        key = (overrides, ranks, strategy)
        if key not in done:
            folder = tmp_path_factory.mktemp("straight")
            done[key] = Run(nursery, folder, [*SMALL_RUN, f"data_dir={tiny_data}", *overrides], ranks=ranks)
            done[key].strategy = strategy
            done[key].finish(timeout=600)
        return done[key]

    return undisturbed
