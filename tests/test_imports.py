"""A command that only prints its help or refuses its settings imports no package that is slow to import."""

import json
import subprocess
import sys

from tests.conftest import ROOT

COMMANDS = ("convert", "evaluate", "generate", "plan", "prepare", "report", "train", "verify")
SLOW = ("torch", "lightning", "scipy", "matplotlib", "transformers", "datasets", "bitsandbytes")
ALL = ("numpy", "pyarrow", "tiktoken", "tokenizers", *SLOW)
NO_RUN = "error: does_not_exist does not exist: it must be a run directory, a checkpoint, or the folder of an exported model."
ASKED = (
    *((f"{command}.py --help", ALL, f"python {command}.py ") for command in COMMANDS),
    *((f"{command}.py misspelt=1", ALL, "error: there is no setting misspelt") for command in COMMANDS),
    ("generate.py run=does_not_exist", ALL, NO_RUN),
    ("evaluate.py run=does_not_exist", ALL, NO_RUN),
    ("convert.py input=does_not_exist", ALL, NO_RUN),
    ("report.py run=does_not_exist", ("pyarrow", "tiktoken", "tokenizers", *SLOW), "does_not_exist is not a run"),
    ("report.py runs=does_not_exist", ("pyarrow", "tiktoken", "tokenizers", *SLOW), "matches no run"),
    ("report.py log_dir=does_not_exist", ("pyarrow", "tiktoken", "tokenizers", *SLOW), "is not a folder"),
    ("prepare.py source=local path=does_not_exist", ("tiktoken", *SLOW), "does_not_exist does not exist"),
    ("train.py optimizer.lr=fast", ALL, "error: optimizer.lr is 'fast'"),
    ("train.py max_steps=-1", ("pyarrow", "tiktoken", "tokenizers", *SLOW), "error: max_steps is -1"),
    ("train.py data_dir=does_not_exist", ("pyarrow", "tiktoken", "datasets", "bitsandbytes"), "not prepared"),
    ("plan.py data_dir=does_not_exist", ("pyarrow", "tiktoken", *SLOW[1:]), "is unknown until it is prepared"),
)
"""A command line, the packages that it must not import, and what it prints."""


def test_what_is_not_used_is_not_imported() -> None:
    asked = json.dumps([[command, packages] for command, packages, _ in ASKED])
    probe = [sys.executable, "tests/import_probe.py", asked]
    done = subprocess.run(probe, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = json.loads(done.stdout)
    imported = {c: answer["imported"] for (c, _, _), answer in zip(ASKED, answers, strict=True) if answer["imported"]}
    assert imported == {}
    for (command, _, message), answer in zip(ASKED, answers, strict=True):
        assert message in answer["output"], f"{command}: {answer['output']}"
        assert answer["code"] == (0 if command.endswith("--help") else 1), command
