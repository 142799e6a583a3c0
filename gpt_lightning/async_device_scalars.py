"""A few numbers on their way from the device to the host."""

import torch
from torch import Tensor


class AsyncDeviceScalars:
    """Copies numbers to the host without waiting; `read` waits for them, but for nothing that the device is asked to do later.

    Args:
        values: (numbers,) on any device.
    """

    def __init__(self, values: Tensor) -> None:
        self._values, self._arrived = values, None
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> list[float]:
        """The numbers."""
        if self._arrived is not None:
            self._arrived.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers
