"""The process of one stage: `python -m benchmarks.gpu_day.stage '<its Day as JSON>'`."""

import importlib
import json
import sys

from benchmarks.gpu_day.day import Day


def main(argument: str) -> None:
    day = Day(**json.loads(argument))
    importlib.import_module(f"benchmarks.gpu_day.{day.stage}").run(day)


if __name__ == "__main__":
    main(sys.argv[1])
