"""Orthogonalisation of matrices by batched Newton-Schulz iterations."""

from collections.abc import Sequence

import torch
from torch import Tensor


def orthogonalize(
    matrices: Sequence[Tensor], *, coefficients: tuple[float, float, float], steps: int, eps: float
) -> list[Tensor]:
    """Orthogonalise matrices with the iterations of torch.optim.Muon, all in the same batched products.

    On a CPU, each result equals that of torch.optim.Muon for the single matrix bit for bit.

    Args:
        matrices: In bf16, all of one shape or its transpose.
        coefficients: Of the quintic polynomial.
        steps: Number of iterations.
        eps: Lower bound of the norm by which a matrix is divided.

    Returns:
        The orthogonalised matrices, in order.
    """
    a, b, c = coefficients
    x = torch.stack([matrix.mT if _is_tall(matrix) else matrix for matrix in matrices])
    norms = torch.stack(torch._foreach_norm(list(x)))
    x.div_(norms.clamp(min=eps)[:, None, None])
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return [y.mT.contiguous() if _is_tall(matrix) else y for matrix, y in zip(matrices, x, strict=True)]


def _is_tall(matrix: Tensor) -> bool:
    return matrix.shape[0] > matrix.shape[1]
