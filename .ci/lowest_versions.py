"""make lowest: run a selection of the tests with the lowest versions that pyproject.toml allows.

In a separate environment, every `>=` in the dependencies of the project and of the tests becomes `==`. The environment
uses the Python that runs this script; use the lowest version that pyproject.toml allows. For other tests:
`python .ci/lowest_versions.py tests/test_plan.py …`.
"""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv-lowest"
SELECTION = (
    "tests/gpt_lightning",
    "tests/data_modules",
    "tests/test_ranks.py",
    "tests/test_fsdp.py",
    "tests/test_train.py",
    "tests/test_resume.py",
    "tests/test_generate.py",
    "tests/test_multirun.py",
    "tests/analysis/test_run_report.py",
    "tests/callbacks",
)


def lowest(project: dict[str, Any]) -> list[str]:
    """The lowest version of every package that the project and its tests need, as requirements.

    Args:
        project: the table `project` of pyproject.toml.
    """
    needed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return [requirement.replace(">=", "==") for requirement in needed]


def main(tests: list[str]) -> int:
    """Create the environment if necessary, and run the tests in it. Returns pytest's exit code."""
    requirements = "\n".join(lowest(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])) + "\n"
    installed = ENVIRONMENT / "requirements.txt"
    python = str(ENVIRONMENT / "bin" / "python")
    if not installed.is_file() or installed.read_text() != requirements:
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        wanted = ENVIRONMENT / "wanted.txt"
        wanted.write_text(requirements)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", wanted], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--editable", ROOT], check=True)
        wanted.rename(installed)
    # warnings are not errors here, because old packages warn about newer ones
    command = [python, "-m", "pytest", "-W", "default", "--disable-warnings", *(tests or SELECTION)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
