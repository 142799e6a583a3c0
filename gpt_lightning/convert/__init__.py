"""Models to and from the files of other projects.

    run directory, checkpoint ──┐                       ┌── to_hf      folder that `transformers` loads: gpt2 or llama
    Hugging Face folder ────────┤                       │
    RangeFlow-GPT .pt ──────────┼── load_model ── GPT ──┤
    GPT-2.5 .pt ────────────────┤                       │
    our own folder ─────────────┘                       └── to_native  our own folder: every GPT fits in

`tables.py` is the place to begin reading: what a weight is called elsewhere is data, and one table serves both directions.
Weights keep their dtype and every bit. A folder is written whole or not at all. A model that comes back is in eval mode, on
the CPU, with attention="auto". Whatever cannot be read or expressed is refused by name, as a ValueError.
"""

from gpt_lightning.convert.gpt2_5 import from_gpt2_5
from gpt_lightning.convert.grow_vocabulary import grow_vocabulary
from gpt_lightning.convert.hugging_face import from_hf, to_hf
from gpt_lightning.convert.init_from import load_initial_weights
from gpt_lightning.convert.load_model import load_model
from gpt_lightning.convert.native_format import from_native, to_native
from gpt_lightning.convert.rangeflow import from_rangeflow

__all__ = [
    "from_gpt2_5",
    "from_hf",
    "from_native",
    "from_rangeflow",
    "grow_vocabulary",
    "load_initial_weights",
    "load_model",
    "to_hf",
    "to_native",
]
