"""Matrix products that are faster than torch's own where no gradient is recorded and the device is a CPU.

torch multiplies fp32 matrices with MKL, which leaves half of the vector width of AMD's CPUs unused, and a single row on one
core alone. oneDNN, which torch carries for bf16, does better with several rows, and one product per core with a single row.
Measured by `benchmarks/linear.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """torch's linear layer; where nobody records, casts or compiles the product, it computes by `fast_linear`."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
            return F.linear(x, self.weight, self.bias)
        return fast_linear(x, self.weight, self.bias)


def fast_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear(x, weight, bias)`, no gradient recorded: (…, d_in) x (d_out, d_in) -> (…, d_out)."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return F.linear(x, weight, bias)
    d_out, d_in = weight.shape
    parts = torch.get_num_threads()
    if x.numel() == d_in and d_out % parts == 0:
        column = x.reshape(1, d_in, 1).expand(parts, d_in, 1)
        y = torch.bmm(weight.view(parts, d_out // parts, d_in), column).view(*x.shape[:-1], d_out)
        return y if bias is None else y.add_(bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
