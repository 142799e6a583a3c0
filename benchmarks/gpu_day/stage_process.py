"""The process of one stage: `python -m benchmarks.gpu_day.stage_process '<its Day as JSON>'`."""

import importlib
import json
import os
import sys

from benchmarks.gpu_day.result_rows import Day


def main(argument: str) -> None:
    day = Day(**json.loads(argument))
    importlib.import_module(f"benchmarks.gpu_day.{day.stage}").run(day)
    sys.stdout.flush()
    os._exit(0)  # at its own exit torch waits for the processes that compile, up to minutes


if __name__ == "__main__":
    main(sys.argv[1])
