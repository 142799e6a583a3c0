"""The process of one stage: `python -m benchmarks.gpu_day.stage_worker '<its Day as JSON>'`."""

import importlib
import json
import os
import sys

from benchmarks.gpu_day.result_rows import Day


def main(argument: str) -> None:
    day = Day(**json.loads(argument))
    importlib.import_module(f"benchmarks.gpu_day.{day.stage}").run(day)
    sys.stdout.flush()
    os._exit(0)  # a normal exit would wait up to minutes for torch's compile processes


if __name__ == "__main__":
    main(sys.argv[1])
