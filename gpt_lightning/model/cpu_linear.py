"""Matrix products that are faster than torch's own where no gradient is recorded and the device is a CPU.

torch multiplies fp32 matrices with MKL, which leaves half of the vector width of AMD's CPUs unused, and multiplies a single row
there on one core alone. oneDNN, which torch carries for bf16, does better there; and with a few rows, as in generating for a
batch, everywhere. `python -m benchmarks linear` shows it.
"""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL = 2**18  # weights below which calls cost more than arithmetic, and the plainest call is best
FEW = range(4, 17)  # rows with which oneDNN is faster than MKL on Intel's CPUs too
_HAS_ONEDNN = torch.backends.mkldnn.is_available()


class FastLinear(nn.Linear):
    """torch's linear layer; where nobody records, casts or compiles the product, it computes by `fast_linear`."""

    stacked: tuple[int, ...] = ()
    """Where its weight is several matrices, one below the other, because one product is faster: how many rows each has."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
            return F.linear(x, self.weight, self.bias)
        return fast_linear(x, self.weight, self.bias)


def fast_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear(x, weight, bias)`, no gradient recorded: (…, d_in) x (d_out, d_in) -> (…, d_out)."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or weight.numel() < SMALL or not _HAS_ONEDNN:
        return F.linear(x, weight, bias)
    rows = x.numel() // weight.shape[1]
    if _is_amd() and rows == 1:
        return _shared_out(x, weight, bias)
    if _is_amd() or rows in FEW:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def working_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which matrices are multiplied with x: autocast's where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


@cache
def _is_amd() -> bool:
    cpu = Path("/proc/cpuinfo")
    return cpu.is_file() and "AuthenticAMD" in cpu.read_text()


def _shared_out(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A single row: each core multiplies its share of the weight's rows; the few that cannot be shared out follow."""
    d_out, d_in = weight.shape
    cores = torch.get_num_threads()
    share = d_out // cores
    row = x.reshape(1, d_in)
    column = row.T.expand(cores, d_in, 1)  # a transposed row: BLAS takes other strides of it slowly
    blocks = weight[: cores * share].view(cores, share, d_in)
    summand = x.new_zeros(1, 1, 1) if bias is None else bias[: cores * share].view(cores, share, 1)
    y = torch.baddbmm(summand, blocks, column).view(cores * share)
    if cores * share < d_out:
        rest = F.linear(row, weight[cores * share :], None if bias is None else bias[cores * share :])
        y = torch.cat([y, rest[0]])
    return y.view(*x.shape[:-1], d_out)
