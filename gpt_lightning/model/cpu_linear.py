"""Matrix products that are faster than torch's on a CPU when no gradient is recorded.

torch multiplies fp32 matrices with MKL, which uses only half of the vector width of AMD CPUs, and multiplies a single
row on one core. oneDNN, which torch includes for bf16, is faster in these cases; with a few rows, as in batched
generation, oneDNN is faster on all CPUs. `python -m benchmarks linear` measures both.
"""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL = 2**18  # weights with fewer elements use torch's product, because the call costs more than the arithmetic
FEW = range(4, 17)  # numbers of rows for which oneDNN is faster than MKL on Intel CPUs too
_HAS_ONEDNN = torch.backends.mkldnn.is_available()


class FastLinear(nn.Linear):
    """A linear layer that calls `fast_linear` when no gradient is recorded, outside autocast and torch.compile."""

    stacked: tuple[int, ...] = ()
    """Number of rows of each matrix, if the weight consists of several matrices that are stacked for one fused product."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
            return F.linear(x, self.weight, self.bias)
        return fast_linear(x, self.weight, self.bias)


def fast_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `F.linear(x, weight, bias)` without gradients: (…, d_in) x (d_out, d_in) -> (…, d_out)."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or weight.numel() < SMALL or not _HAS_ONEDNN:
        return F.linear(x, weight, bias)
    rows = x.numel() // weight.shape[1]
    if _is_amd() and rows == 1:
        return _shared_out(x, weight, bias)
    if _is_amd() or rows in FEW:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def working_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which matrices are multiplied with x: autocast's dtype if autocast is enabled, otherwise the
    dtype of x.
    """
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


@cache
def _is_amd() -> bool:
    cpu = Path("/proc/cpuinfo")
    return cpu.is_file() and "AuthenticAMD" in cpu.read_text()


def _shared_out(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply a single row: each core handles an equal share of the weight's rows, and the remaining few follow."""
    d_out, d_in = weight.shape
    cores = torch.get_num_threads()
    share = d_out // cores
    row = x.reshape(1, d_in)
    column = row.T.expand(cores, d_in, 1)  # a transposed row, because BLAS is slow with other strides
    blocks = weight[: cores * share].view(cores, share, d_in)
    summand = x.new_zeros(1, 1, 1) if bias is None else bias[: cores * share].view(cores, share, 1)
    y = torch.baddbmm(summand, blocks, column).view(cores * share)
    if cores * share < d_out:
        rest = F.linear(row, weight[cores * share :], None if bias is None else bias[cores * share :])
        y = torch.cat([y, rest[0]])
    return y.view(*x.shape[:-1], d_out)
