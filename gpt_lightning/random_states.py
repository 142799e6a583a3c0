"""Save and restore the states of all random generators of a process, as values that a checkpoint can hold.

Training itself does not depend on these states: dropout is seeded by (seed, step, micro-batch, rank), and the order of
the data is a function. The states are saved for other code that draws random numbers during a run, such as a user's
callback.
"""

import random
from typing import Any

import numpy as np
import torch


def seed_all(number: int) -> None:
    """Seed the generators of python, numpy and torch, including CUDA's."""
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002  # for code that uses the global generator
    torch.manual_seed(number)


def collect_states() -> dict[str, Any]:
    """Return the states of python, numpy, torch and, if CUDA is initialised, this process's GPU."""
    version, state, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002  # the global generator
    return {
        "python": [version, list(state), gauss],
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def restore_states(states: dict[str, Any]) -> None:
    """Restore the states that `collect_states` returned."""
    version, state, gauss = states["python"]
    random.setstate((version, tuple(state), gauss))
    numpy_state = states["numpy"]
    key = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy_state, "state": {**numpy_state["state"], "key": key}})  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
