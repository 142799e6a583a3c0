"""python -m benchmarks.gpu_day: every stage within its deadline, one file of rows, exit code 1 where a check failed,
2 where no time was left for something.

python -m benchmarks.gpu_day --wheels FOLDER              # installs the wheels first
python -m benchmarks.gpu_day --rehearse --seconds 1500    # tiny, and judges no value: for a GPU that computes nothing
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

# Seconds that each stage may take of a day of 540.
STAGES = {
    "environment": 35,
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
_SHORTEST = 5  # seconds that a stage is worth starting for
_RESULTS = Path(__file__).resolve().parent.parent / "results"


def run_day(
    day: Day, stages: Mapping[str, float], *, seconds: float, environment: Mapping[str, str] | None = None
) -> int:
    """Run the stages one after another; return the exit code.

    Args:
        day: its stage and deadline are set anew for each stage.
        stages: seconds that each may take of a day of 540; of a longer day a stage has as large a share.
        seconds: all stages together.
        environment: variables of their processes; None: ours.
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

    In a rehearsal only a stage that broke counts.
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
    """One stage in a process group of its own, which is killed when its deadline has passed."""
    print(f"== {day.stage}, {day.seconds_left():.0f} s at most", flush=True)
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu_day.stage_process", day.to_json()]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait(max(0.1, day.seconds_left() + 1))
        broke = None if code == 0 else f"its process ended with exit code {code}; the log above says why"
    except subprocess.TimeoutExpired:
        broke = "its deadline passed, and what it had not measured is missing"
    finally:
        _kill(process)
    if broke:
        append(Path(day.results), {"stage": day.stage, "row": "stage", "error": broke})


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End what is left of a stage, its children included."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _set_aside(results: Path) -> None:
    """Rename the file of an earlier day, if there is one, so that nothing of it is lost."""
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
    """The environment in which the packages of a folder of wheels are found first."""
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
    """The ends of what the stages' children said, in one file."""
    ends = [f"== {path.stem}\n{path.read_text(errors='replace')[-5000:]}" for path in sorted(folder.glob("*.log"))]
    to.write_text("\n".join(ends), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=DAY, help="all stages together")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES), help="only these")
    parser.add_argument("--out", type=Path, default=None, help="folder of the results; default: benchmarks/results")
    parser.add_argument("--wheels", type=Path, default=None, help="folder that benchmarks.gpu_day.wheels made")
    parser.add_argument("--nanogpt", default=None, help="folder with nanoGPT's model.py")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on a GPU that computes nothing")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stage at work ends as well
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
