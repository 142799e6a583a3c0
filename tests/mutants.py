"""Mutants: small mutations of what the project promises, each with a test that must fail because of it.

`python -m tests.mutants [number …]` applies each one in a temporary copy of the repository, runs its test, and prints
whether the mutant was killed. The exit code is 1 if one survives. CI does not run this; tests/test_mutants.py checks that
the list still fits the code.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_LIMIT = 300  # seconds for a test


class Mutant(NamedTuple):
    law: str
    """What no longer holds."""
    file: str
    old: str
    """Text that occurs exactly once in the file."""
    new: str
    test: str
    """The pytest id of the test that must fail."""


_ORDER, _SHARDS = "tests/data_modules/order", "tests/data_modules/shards"
MUTANTS = (
    Mutant(
        "each epoch of a source has another order",
        "data_modules/order/sample_order.py",
        "self.sources[pair // epochs], pair % epochs)",
        "self.sources[pair // epochs], 0)",
        f"{_ORDER}/test_sample_order.py::test_epochs_and_seeds_differ_and_nothing_else_does",
    ),
    Mutant(
        "the number of a sequence counts all sequences of its source before it",
        "data_modules/order/sample_order.py",
        "number = after[row, source] - ends[row, source] + drawn",
        "number = after[row, source] - ends[row, source] + drawn + 1",
        f"{_ORDER}/test_sample_order.py::test_the_order_is_that_of_a_replay",
    ),
    Mutant(
        "each source is within a sequence of its exact share at the borders of blocks",
        "data_modules/order/apportionment.py",
        "lower, upper = ends >> SHARE_BITS, -(-ends >> SHARE_BITS)\n",
        "lower, upper = (ends >> SHARE_BITS) - 2, 2 - (-ends >> SHARE_BITS)\n",
        f"{_ORDER}/test_sample_order.py::test_every_source_is_within_two_sequences_of_its_share_at_every_step",
    ),
    Mutant(
        "a limit of epochs counts what was drawn before",
        "data_modules/order/draw_counts_per_segment.py",
        "max(0, n - drawn[names.index(s)].item())",
        "max(0, n)",
        f"{_ORDER}/test_mix_weight_updates.py::test_a_limit_holds_through_updates",
    ),
    Mutant(
        "an update of the mix weights carries over what each source is due",
        "data_modules/order/draw_counts_per_segment.py",
        "return self.due_before(self.end) - (drawn << SHARE_BITS)",
        "return 0 * (self.due_before(self.end) - (drawn << SHARE_BITS))",
        f"{_ORDER}/test_mix_weight_updates.py::test_a_rare_source_is_not_rounded_away_by_many_updates",
    ),
    Mutant(
        "a document that fits into a sequence is not cut",
        "data_modules/shards/cut_into_sequences.py",
        "fits = last >= 0 and document_ends[last] > start",
        "fits = last >= 0 and document_ends[last] > start + 1",
        f"{_SHARDS}/test_cut_into_sequences.py",
    ),
    Mutant(
        "a flipped byte of a shard is found",
        "data_modules/shards/shard_integrity.py",
        "self._crc32_per_mib += (_crc32(whole[start : start + MIB])",
        "self._crc32_per_mib += (_crc32(whole[start : start + MIB - 1])",
        f"{_SHARDS}/test_shard_integrity.py",
    ),
    Mutant(
        "each rank reads its own part of the global batch",
        "data_modules/training_batches.py",
        "slots = np.arange(self._of_rank) + self._cut.rank * self._of_rank",
        "slots = np.arange(self._of_rank)",
        "tests/data_modules/test_mixed_data_module.py::test_cutting_and_reading_ahead_change_nothing",
    ),
    Mutant(
        "the loss is the mean over the tokens that bear loss",
        "gpt_lightning/loss_normalization.py",
        "return n_targets / n_loss_bearing.clamp(min=1)",
        "return n_targets / n_loss_bearing.clamp(min=n_targets)",
        "tests/gpt_lightning/test_lit_gpt.py::test_the_gradient_is_that_of_the_mean_over_the_global_batch",
    ),
    Mutant(
        "gradients are clipped to the limit, never scaled up to it",
        "gpt_lightning/lit_gpt.py",
        "(limit / (norm + 1e-6)).clamp(max=1)",
        "(limit / (norm + 1e-6))",
        "tests/gpt_lightning/test_lit_gpt.py::test_the_gradient_is_that_of_the_mean_over_the_global_batch",
    ),
    Mutant(
        "dropout differs between the micro-batches of a step",
        "gpt_lightning/lit_gpt.py",
        "{self.trainer.global_step}/{micro}/",
        "{self.trainer.global_step}/",
        "tests/gpt_lightning/test_lit_gpt.py::test_dropout_differs_between_micro_batches_and_steps",
    ),
    Mutant(
        "a skipped step does not advance the schedule",
        "gpt_lightning/lit_gpt.py",
        "        if self.left_out is None:\n            scheduler.step()",
        "        scheduler.step()",
        "tests/gpt_lightning/test_skipped_steps.py::test_a_spike_is_left_out_moments_and_schedule_included",
    ),
    Mutant(
        "norms and biases have no weight decay",
        "gpt_lightning/optim/parameter_groups.py",
        "{} if parameter.dim() >= 2 else",
        "{} if parameter.dim() >= 1 else",
        "tests/gpt_lightning/test_lit_gpt.py::test_only_matrices_decay",
    ),
    Mutant(
        "the decay of the learning rate starts after the warm-up",
        "gpt_lightning/learning_rate_schedules.py",
        "(step - begin) / (steps - begin)",
        "(step - begin) / steps",
        "tests/gpt_lightning/test_schedules.py",
    ),
    Mutant(
        "a changed learning rate holds from the resumed step on",
        "gpt_lightning/lit_gpt.py",
        "            group |= options\n",
        "",
        "tests/test_resume.py::test_a_changed_learning_rate_is_logged_and_holds",
    ),
    Mutant(
        "a run with another seed is another run",
        "gpt_lightning/setting_roles.py",
        '"seed": Setting(Role.RESULT, is_fixed=True)',
        '"seed": Setting(Role.RESULT)',
        "tests/test_resume.py::test_what_defines_a_run_is_refused_by_name",
    ),
    Mutant(
        "a checkpoint that does not match its manifest is not used",
        "gpt_lightning/verified_checkpoint.py",
        'hashlib.file_digest(file, "sha256").hexdigest() == manifest["sha256"]',
        'hashlib.file_digest(file, "sha256").hexdigest() != ""',
        "tests/gpt_lightning/test_checkpoint.py",
    ),
    Mutant(
        "initial weights that were trained with other tokens are refused",
        "running/training/find_tokenizer.py",
        "if not tokenizer.extends(theirs):",
        "if not tokenizer.extends(tokenizer):",
        "tests/test_init_from.py::test_weights_of_other_tokens_are_refused",
    ),
    Mutant(
        "verify.py fails if losses differ by more than rounding",
        "gpt_lightning/optim/optimizer_traits.py",
        "verify_tolerance: float = 1e-5",
        "verify_tolerance: float = 1e-3",
        "tests/test_verify.py::test_a_run_that_is_another_fails",
    ),
    Mutant(
        "a difference between settings is tested with the degrees of freedom that are left",
        "analysis/comparison/tukey_test.py",
        "return len(self.values) - int(np.linalg.matrix_rank(self._model))",
        "return len(self.values) - 1",
        "tests/analysis/test_tukey_test.py::test_two_settings_are_students_t",
    ),
)


def kill(mutant: Mutant, copy: Path) -> bool:
    """Return whether the test fails in a copy of the repository with the mutation."""
    path = copy / mutant.file
    original = path.read_text(encoding="utf-8")
    path.write_text(original.replace(mutant.old, mutant.new), encoding="utf-8")
    environment = os.environ | {"GPT_LIGHTNING_TEST_DATA": os.environ.get("GPT_LIGHTNING_TEST_DATA", "none")}
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.test]
    try:
        done = subprocess.run(
            pytest, cwd=copy, env=environment, capture_output=True, text=True, timeout=_LIMIT, check=False
        )
    finally:
        path.write_text(original, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mutant.test} cannot be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 1


def main(numbers: list[int]) -> None:
    survivors = 0
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "repository"
        files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for file in files.splitlines():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, copy / file)
        for number, mutant in enumerate(MUTANTS, start=1):
            if numbers and number not in numbers:
                continue
            began = time.perf_counter()
            killed = kill(mutant, copy)
            survivors += not killed
            state = "killed" if killed else "SURVIVED"
            print(
                f"{number:2d} {state:8} {time.perf_counter() - began:5.0f} s  {mutant.file}: {mutant.law}", flush=True
            )
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main([int(number) for number in sys.argv[1:]])
