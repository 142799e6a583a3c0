"""The states of all random generators of a process, as values that a checkpoint may hold.

Training itself needs none of them: dropout is seeded by its place in the run, and the order of the data is a function. They
are kept for what else draws random numbers in a run, such as a callback of the user's.
"""

import random
from typing import Any

import numpy as np
import torch


def seed_all(number: int) -> None:
    """Begin all of them anew; CUDA's too."""
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002  # for those who draw from it
    torch.manual_seed(number)


def collect_states() -> dict[str, Any]:
    """The states of python, numpy, torch and, where there is one, this process's GPU."""
    version, state, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002  # it is the state of others that is kept
    return {
        "python": [version, list(state), gauss],
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def restore_states(states: dict[str, Any]) -> None:
    """Go on from what `collect` gave."""
    version, state, gauss = states["python"]
    random.setstate((version, tuple(state), gauss))
    numpy_state = states["numpy"]
    key = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy_state, "state": {**numpy_state["state"], "key": key}})  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
