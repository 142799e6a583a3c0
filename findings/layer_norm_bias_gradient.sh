#!/usr/bin/env bash
# torch 2.13.0, CPU: the gradient of LayerNorm's bias in bf16 depends on the number of threads, and most of it is lost.
#
# Good guess: the gradient of a bias is the sum of the upstream gradient over all rows, summed in fp32 and rounded once, as that
# of a linear layer is: 4,096 for 4,096 rows of ones.
# Behaviour: each thread sums its rows in bf16, where 256 + 1 is 256. With one thread the gradient is 256, with four it is 1,024.
# Output seen:
#   Linear, 1 thread: 4096
#   LayerNorm, 1 thread: 256
#   LayerNorm, 2 threads: 512
#   LayerNorm, 4 threads: 1024
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn

ROWS, WIDTH = 4096, 64


def bias_gradient(layer, threads):
    torch.set_num_threads(threads)
    layer = layer.to(torch.bfloat16)
    y = layer(torch.randn(ROWS, WIDTH, dtype=torch.bfloat16))
    y.backward(torch.ones_like(y))
    assert len(layer.bias.grad.unique()) == 1
    return int(layer.bias.grad[0])


seen = {"Linear, 1 thread": bias_gradient(nn.Linear(WIDTH, WIDTH), 1)}
for threads in (1, 2, 4):
    seen[f"LayerNorm, {threads} thread{'s' * (threads > 1)}"] = bias_gradient(nn.LayerNorm(WIDTH), threads)
print("\n".join(f"{what}: {gradient}" for what, gradient in seen.items()))
assert list(seen.values()) == [4096, 256, 512, 1024], "the behaviour has changed"
PYTHON
