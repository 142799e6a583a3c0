"""Run command lines, each in a fork, and report the first import of a forbidden package.

`python tests/import_probe.py '[["train.py --help", ["torch", …]], …]'` prints a JSON list with an object for each command
line: `code`, the exit code; `output`; and `imported`, the forbidden package and the lines of the project that import it,
or null. A command that imports one ends at once.
"""

import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Forbidden:
    """An import hook that ends the process when one of the packages is imported."""

    def __init__(self, packages: list[str]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self._packages:
            lines = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(ROOT)]
            ours = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in lines if ".venv" not in frame.filename]
            sys.stdout.flush()
            os.write(1, f"\n!{name}, by {' > '.join(ours[:-1])}".encode())
            os._exit(1)


def run(command: str, packages: list[str]) -> dict[str, Any]:
    with TemporaryFile() as file:
        pid = os.fork()
        if not pid:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            sys.meta_path.insert(0, Forbidden(packages))  # type: ignore[arg-type]
            script, *sys.argv[1:] = command.split()
            sys.argv[0] = script
            runpy.run_path(str(ROOT / script), run_name="__main__")
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        file.seek(0)
        output, _, imported = file.read().decode().partition("\n!")
    return {"code": os.waitstatus_to_exitcode(status), "output": output, "imported": imported or None}


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    sys.path.insert(0, str(ROOT))
    hook = Forbidden([package for package in asked[0][1] if all(package in packages for _, packages in asked)])
    sys.meta_path.insert(0, hook)  # type: ignore[arg-type]
    import command_runner  # noqa: F401  # once for all commands

    sys.meta_path.remove(hook)  # type: ignore[arg-type]
    print(json.dumps([run(command, packages) for command, packages in asked]))
