#!/usr/bin/env bash
# torch 2.13.0: Module.to_empty unties weights that two modules share.
#
# Good guess: a head that shares its weight with the embedding still shares it after to_empty, as it does after .to(dtype):
# parameters() counts the weight once before and once after.
# Behaviour: a model that was built on the meta device has two weights afterwards. Training goes on without an error, with a head
# that is its own parameter and with as much memory more. On a device that the model is on already, the tie stays.
# Output seen:
#   built on meta: tied, 40 numbers
#   to_empty(device="cpu"): untied, 80 numbers
#   to(bfloat16): tied, 40 numbers
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embedding.weight


def state(model):
    tied = "tied" if model.head.weight is model.embedding.weight else "untied"
    return f"{tied}, {sum(p.numel() for p in model.parameters())} numbers"


with torch.device("meta"):
    model = Tied()
seen = {"built on meta": state(model)}
seen['to_empty(device="cpu")'] = state(model.to_empty(device="cpu"))
seen["to(bfloat16)"] = state(Tied().to(torch.bfloat16))
print("\n".join(f"{what}: {how}" for what, how in seen.items()))
assert list(seen.values()) == ["tied, 40 numbers", "untied, 80 numbers", "tied, 40 numbers"], "the behaviour has changed"
PYTHON
