"""Text generation.

::

    prompts --RollingKVCache--> KV cache, logits of the next token --TokenSampler--> one id per text --> fed back

Each prompt is read once into the cache; then each new token costs a forward pass over one token. `EagerDecoding` runs
these passes one by one. On CUDA, where launching a pass costs more than computing it, `StaticDecoding` runs them with
fixed shapes and replays them as a CUDA graph. `generate` and `stream_generated_text` choose by the model's device.
"""

from gpt_lightning.generation.generate import generate, stream_generated_text
from gpt_lightning.generation.rolling_kv_cache import window_start
from gpt_lightning.generation.sampling import Sampling

__all__ = ["Sampling", "generate", "stream_generated_text", "window_start"]
