"""Convert models to and from the file formats of other projects.

    run directory, checkpoint ──┐                       ┌── to_hf      folder that `transformers` loads: gpt2 or llama
    Hugging Face folder ────────┤                       │
    RangeFlow-GPT .pt ──────────┼── load_model ── GPT ──┤
    GPT-2.5 .pt ────────────────┤                       │
    native folder ──────────────┘                       ├── to_gguf    file for llama.cpp and Ollama
                                                        └── to_native  native folder: holds every GPT

Start reading in `weight_renaming.py`: one table per format maps weight names, and serves both directions. Weights keep
their dtype and every bit. A folder is written completely or not at all. A loaded model is in eval mode, on the CPU,
with attention="auto" unless it was trained with a user's own backend. What cannot be read or expressed raises a
ValueError that names it.
"""

from gpt_lightning.convert.gguf_format import to_gguf
from gpt_lightning.convert.gpt2_5 import from_gpt2_5
from gpt_lightning.convert.grow_vocabulary import grow_vocabulary
from gpt_lightning.convert.hugging_face import from_hf, to_hf
from gpt_lightning.convert.init_from import model_from_initial_weights
from gpt_lightning.convert.load_model import load_model
from gpt_lightning.convert.native_format import from_native, to_native
from gpt_lightning.convert.rangeflow import from_rangeflow

__all__ = [
    "from_gpt2_5",
    "from_hf",
    "from_native",
    "from_rangeflow",
    "grow_vocabulary",
    "load_model",
    "model_from_initial_weights",
    "to_gguf",
    "to_hf",
    "to_native",
]
