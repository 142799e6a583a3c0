"""How OpenMP threads on a CPU wait for each other: set before torch, which loads OpenMP, is imported."""

import os

_SPINS = "10000"  # about ten microseconds, longer than the gap between two operations of a small model


def set_openmp_spin_count() -> None:
    """Let a waiting OpenMP thread sleep after about ten microseconds of spinning, unless the environment says otherwise.

    GNU's OpenMP spins for milliseconds by default. If another program occupies a core, each operation then takes that long. The
    results are the same bits. Intel's and LLVM's OpenMP ignore the variable.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = _SPINS
