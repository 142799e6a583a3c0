"""The list of tests/mutants.py fits the code. `python -m tests.mutants` runs it."""

from tests.conftest import ROOT
from tests.mutants import MUTANTS


def test_each_mutation_can_be_applied_and_its_test_exists() -> None:
    assert len(MUTANTS) == 20
    for mutant in MUTANTS:
        content = (ROOT / mutant.file).read_text(encoding="utf-8")
        assert content.count(mutant.old) == 1, f"{mutant.file}: {mutant.old}"
        assert mutant.old != mutant.new
        path, _, name = mutant.test.partition("::")
        assert f"def {name}" in (ROOT / path).read_text(encoding="utf-8"), mutant.test
