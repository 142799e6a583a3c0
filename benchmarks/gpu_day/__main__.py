"""python -m benchmarks.gpu_day: run every stage within its deadline, and write one file of rows.

The exit code is 1 if a check failed, 2 if time ran out.

python -m benchmarks.gpu_day --wheels FOLDER              # installs the wheels first
python -m benchmarks.gpu_day --rehearse --seconds 1500    # tiny sizes and no checks of values: for a null GPU
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from benchmarks.gpu_day.result_rows import Day, append, failures, read_rows

# Seconds per stage of a day of 540 seconds.
STAGES = {
    "gpu_environment": 35,
    "attention": 40,
    "loss_head": 30,
    "resume": 85,
    "faults": 40,
    "ranks": 45,
    "speed": 165,
    "trainer": 45,
    "generation": 35,
    "profile": 20,
}
DAY = 540
_SHORTEST = 5  # seconds; with less time left, no stage is started
_RESULTS = Path(__file__).resolve().parent.parent / "results"


def run_day(
    day: Day, stages: Mapping[str, float], *, seconds: float, environment: Mapping[str, str] | None = None
) -> int:
    """Run the stages one after another; return the exit code.

    Args:
        day: its stage and deadline are set for each stage.
        stages: stage -> seconds of a day of 540 seconds; a longer day gives each stage proportionally more.
        seconds: time for all stages together.
        environment: variables of their processes; None: those of this process.
    """
    end = time.time() + seconds
    for stage, share in stages.items():
        if end - time.time() < _SHORTEST:
            append(Path(day.results), {"stage": stage, "row": "stage", "skipped": "no time is left"})
            continue
        until = min(time.time() + share * max(1.0, seconds / DAY), end)
        _run_stage(Day(**{**vars(day), "stage": stage, "until": until}), environment or os.environ)
    return report(day)


def report(day: Day) -> int:
    """Print what was skipped and what failed. The exit code is 1 if a check failed, 2 if time ran out.

    In a rehearsal, only a broken stage counts as failed.
    """
    rows = read_rows(Path(day.results))
    for row in rows:
        if "skipped" in row:
            print(f"skipped: {row['stage']}: {row['row']}: {row['skipped']}")
        elif "error" in row and "passed" not in row and row["row"] != "stage":
            print(f"not measured: {row['stage']}: {row['row']}: {row['error']}")
    failed = failures(rows)
    checks = sum("passed" in row for row in rows)
    for line in failed:
        print(f"FAILED: {line}")
    print(f"{checks} checks, {len(failed)} failures, rows in {day.results}")
    if day.rehearse:
        return 1 if failures([row for row in rows if "passed" not in row]) else 0
    if failed:
        return 1
    return 2 if any(row.get("skipped") == "no time is left" for row in rows) else 0


def _run_stage(day: Day, environment: Mapping[str, str]) -> None:
    """Run one stage in its own process group, which is killed at its deadline."""
    print(f"== {day.stage}, {day.seconds_left():.0f} s at most", flush=True)
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu_day.stage_worker", day.to_json()]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait(max(0.1, day.seconds_left() + 1))
        broke = None if code == 0 else f"its process ended with exit code {code}; the log above says why"
    except subprocess.TimeoutExpired:
        broke = "its deadline passed; later measurements are missing"
    finally:
        _kill(process)
    if broke:
        append(Path(day.results), {"stage": day.stage, "row": "stage", "error": broke})


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill the remaining processes of a stage."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _set_aside(results: Path) -> None:
    """Rename the results of an earlier day, so that they are kept."""
    if results.is_file():
        n = 1
        while (aside := results.with_suffix(f".{n}.jsonl")).exists():
            n += 1
        results.rename(aside)


def _device_name(environment: Mapping[str, str]) -> str:
    command = [sys.executable, "-c", "import torch; print(torch.cuda.get_device_name())"]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if asked.returncode:
        raise SystemExit(f"error: torch finds no CUDA device here: {asked.stderr.strip().splitlines()[-1]}")
    return asked.stdout.strip().splitlines()[-1]


def _with_wheels(wheels: Path | None, folder: Path) -> dict[str, str]:
    """The environment variables with which the packages of a folder of wheels are found first."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    paths = [root, os.environ.get("PYTHONPATH", "")]
    if wheels is not None:
        site = folder / "site"
        files = [str(path) for path in sorted(wheels.glob("*.whl"))]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site)]
        subprocess.run([*pip, *files], check=True)
        paths.insert(0, str(site))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _keep_logs(folder: Path, to: Path) -> None:
    """Write the ends of the stages' logs into one file."""
    ends = [f"== {path.stem}\n{path.read_text(errors='replace')[-5000:]}" for path in sorted(folder.glob("*.log"))]
    to.write_text("\n".join(ends), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=DAY, help="for all stages together")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES), help="only these")
    parser.add_argument("--out", type=Path, default=None, help="folder of the results; default: benchmarks/results")
    parser.add_argument("--wheels", type=Path, default=None, help="folder that benchmarks.gpu_day.download_wheels made")
    parser.add_argument("--nanogpt", default=None, help="folder with nanoGPT's model.py")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on a GPU that computes nothing")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the running stage ends too
    with tempfile.TemporaryDirectory(prefix="gpu_day_") as folder:
        environment = _with_wheels(options.wheels, Path(folder))
        name = "rehearsal" if options.rehearse else _device_name(environment).replace(" ", "_").lower()
        out = options.out or (Path(folder) if options.rehearse else _RESULTS)
        out.mkdir(parents=True, exist_ok=True)
        results = out / f"gpu_day_{name}.jsonl"
        _set_aside(results)
        day = Day(str(results), folder, "", 0.0, rehearse=options.rehearse, nanogpt=options.nanogpt)
        chosen = {stage: STAGES[stage] for stage in STAGES if stage in options.stages}
        try:
            code = run_day(day, chosen, seconds=options.seconds, environment=environment)
        finally:
            _keep_logs(Path(folder), results.with_suffix(".log"))
        sys.exit(code)


if __name__ == "__main__":
    main()
