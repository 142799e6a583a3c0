"""Text generation.

::

    prompts --ContinuedTexts--> KV cache, logits of the next token --TokenSampler--> an id per text, fed back as the next token

Each prompt is read once into the cache, then each new token costs one forward pass over one token. `EagerDecoding` makes these
passes one by one. On CUDA, where a pass costs more to launch than to compute, `StaticDecoding` makes them of fixed shapes and
repeats them as a CUDA graph. `generate` and `stream_generated_text` choose by the model's device.
"""

from gpt_lightning.generation.continued_texts import window_start
from gpt_lightning.generation.generate import generate, stream_generated_text
from gpt_lightning.generation.sampling import Sampling

__all__ = ["Sampling", "generate", "stream_generated_text", "window_start"]
