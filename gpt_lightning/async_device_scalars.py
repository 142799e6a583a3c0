"""Copy a few numbers from the device to the host without blocking."""

import torch
from torch import Tensor


class AsyncDeviceScalars:
    """Start an asynchronous copy to the host. `read` waits for this copy, but not for work queued on the device after
    it.

    Args:
        values: shape (numbers,), on any device.
    """

    def __init__(self, values: Tensor) -> None:
        self._values, self._arrived = values, None
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> list[float]:
        """Wait for the copy and return the numbers in order."""
        if self._arrived is not None:
            self._arrived.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers
