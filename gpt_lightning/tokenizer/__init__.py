"""Text to token ids and back.

    text     --encode-->       ids                 ordinary text only: no string can become a special token
    messages --encode_chat-->  ids, loss mask      ChatML; only the assistant's messages bear loss
    ids      --decode-->       text

Two kinds of tokenizer share one interface: GPT-2's BPE (through tiktoken) and a byte-level BPE trained by this project.
Nothing in this package uses torch or the network.
"""

from gpt_lightning.tokenizer.base import Message, Tokenizer
from gpt_lightning.tokenizer.load_tokenizer import load_tokenizer
from gpt_lightning.tokenizer.trained_bpe import train_bpe

__all__ = ["Message", "Tokenizer", "load_tokenizer", "train_bpe"]
