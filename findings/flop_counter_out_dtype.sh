#!/usr/bin/env bash
# torch 2.13.0: FlopCounterMode cannot count addmm and bmm with an out_dtype, though it counts mm.
#
# Good guess: a product of bf16 matrices that is summed in fp32 (`out_dtype=torch.float32`) has the FLOPs of any other, and a
# counter around a model changes nothing of what the model does.
# Behaviour: mm is counted. The other two raise a TypeError from inside the counter, so a model that uses them runs only without.
# Output seen:
#   mm: 512
#   addmm: TypeError
#   bmm: TypeError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.utils.flop_counter import FlopCounterMode

a = torch.empty(8, 4, device="meta", dtype=torch.bfloat16)
total = torch.empty(8, 8, device="meta")
products = {
    "mm": lambda: torch.mm(a, a.T, out_dtype=torch.float32),
    "addmm": lambda: torch.addmm(total, a, a.T, out_dtype=torch.float32),
    "bmm": lambda: torch.bmm(a[None], a.T[None], out_dtype=torch.float32),
}
seen = {}
for name, product in products.items():
    product()  # it runs without the counter
    try:
        with FlopCounterMode(display=False) as counter:
            product()
        seen[name] = str(counter.get_total_flops())
    except TypeError:
        seen[name] = "TypeError"
print("\n".join(f"{name}: {result}" for name, result in seen.items()))
assert list(seen.values()) == ["512", "TypeError", "TypeError"], "the behaviour has changed"
PYTHON
