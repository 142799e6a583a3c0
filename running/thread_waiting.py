"""How the threads of a CPU wait for each other; set before torch, and OpenMP with it, is loaded."""

import os

_TURNS = "10000"  # some ten microseconds, more than lies between two operations of a small model


def wait_briefly() -> None:
    """A thread that waits for the others gives its core away after some ten microseconds, unless the environment says otherwise.

    By default GNU's OpenMP lets it turn for milliseconds. Where another program has one of the cores, each operation then takes
    that long. What is computed is the same.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = _TURNS
