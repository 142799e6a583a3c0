"""A byte-level BPE as the metadata of a GGUF file, so that llama.cpp gives the same ids."""

import json
from typing import Any

from gpt_lightning.convert.tokenizer_files import CHATML
from gpt_lightning.tokenizer import Tokenizer
from gpt_lightning.tokenizer.base import CHAT_END, CHAT_START

_NORMAL, _CONTROL = 1, 3  # token types of llama.cpp


def add_tokenizer(writer: Any, tokenizer: Tokenizer) -> None:
    """Add a tokenizer to the metadata of a GGUF file.

    Args:
        writer: The `gguf.GGUFWriter`.
        tokenizer: The tokenizer.

    Raises:
        ValueError: The tokenizer does not split text as GPT-2 does. llama.cpp knows splitting rules by name only.
    """
    content = json.loads(tokenizer.to_hf_json())
    rule = content["pre_tokenizer"]
    if rule["type"] != "ByteLevel" or not rule["use_regex"]:
        raise ValueError(
            f"tokenizer {tokenizer.name} splits text by {rule['type']}: format=gguf supports only GPT-2's rule, which all "
            "tokenizers that prepare.py trains have."
        )
    vocabulary = {token: number for token, number in content["model"]["vocab"].items()}
    vocabulary |= {token["content"]: token["id"] for token in content["added_tokens"]}
    by_id = sorted(vocabulary, key=vocabulary.__getitem__)
    special = set(tokenizer.special_ids.values())
    merges = content["model"]["merges"]
    writer.add_tokenizer_model("gpt2")  # byte-level BPE
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(by_id)
    writer.add_token_types([_CONTROL if number in special else _NORMAL for number in range(len(by_id))])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.eot_id)  # training data has the end-of-text id before each document
    writer.add_eos_token_id(tokenizer.eot_id)
    writer.add_add_bos_token(True)
    if CHAT_START in tokenizer.special_ids:
        writer.add_eot_token_id(tokenizer.special_ids[CHAT_END])
        writer.add_chat_template(CHATML)
