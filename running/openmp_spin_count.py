"""How long OpenMP threads on a CPU spin while they wait.

The setting takes effect only before torch, which loads OpenMP, is imported.
"""

import os

_SPINS = "10000"  # about 10 µs, longer than the gap between two operations of a small model


def set_openmp_spin_count() -> None:
    """Let a waiting OpenMP thread sleep after about 10 µs of spinning, unless the environment sets another time.

    GNU's OpenMP spins for milliseconds by default. If another program occupies a core, each operation then takes that
    long. The results stay bit-identical. Intel's and LLVM's OpenMP ignore the variable.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = _SPINS
