"""Apply functions of whole matrices to matrices whose rows are sharded over ranks."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, all_to_all_single

Function = Callable[[list[Tensor]], list[Tensor]]
"""List of whole matrices -> list of matrices of the same shapes and dtypes."""


def apply_to_full_matrices(
    function: Function, parts: Sequence[Tensor], n_rows: Sequence[Sequence[int]], ranks: ProcessGroup
) -> list[Tensor]:
    """Return this rank's rows of `function(matrices)`. Each rank evaluates the function for a share of the matrices.

    Args:
        function: Processes each matrix independently.
        parts: This rank's rows of each matrix, possibly none. All ranks pass the same matrices in the same order.
        n_rows: (matrices, ranks), the number of rows that each rank holds.
        ranks: The process group; every rank must call this function.
    """
    n_ranks = ranks.size()
    shares = [range(rank, len(parts), n_ranks) for rank in range(n_ranks)]  # indices of the matrices of each rank
    mine = shares[ranks.rank()]
    order = [matrix for share in shares for matrix in share]
    part_sizes = [parts[matrix].numel() for matrix in order]
    sizes = [sum(parts[matrix].numel() for matrix in share) for share in shares]
    # for each rank, the number of elements that it holds of each matrix evaluated here
    held = [[n_rows[matrix][rank] * parts[matrix].shape[1] for matrix in mine] for rank in range(n_ranks)]
    held_sizes = [sum(of_rank) for of_rank in held]

    sent = torch.cat([parts[matrix].flatten() for matrix in order])
    received = sent.new_empty(sum(held_sizes))
    all_to_all_single(received, sent, held_sizes, sizes, group=ranks)
    if mine:
        pieces = [flat.split(of_rank) for flat, of_rank in zip(received.split(held_sizes), held, strict=True)]
        whole = [
            torch.cat(flat).view(-1, parts[matrix].shape[1])
            for matrix, flat in zip(mine, zip(*pieces, strict=True), strict=True)
        ]
        cut = [result.split(list(n_rows[matrix])) for matrix, result in zip(mine, function(whole), strict=True)]
        received = torch.cat([rows.flatten() for of_rank in zip(*cut, strict=True) for rows in of_rank])
    all_to_all_single(sent, received, sizes, held_sizes, group=ranks)
    results = dict(zip(order, sent.split(part_sizes), strict=True))
    return [results[matrix].view_as(part) for matrix, part in enumerate(parts)]
