"""Write the files with which `transformers.AutoTokenizer` reproduces one of our tokenizers."""

from gpt_lightning.convert.model_folder_io import to_json
from gpt_lightning.model import GPT
from gpt_lightning.tokenizer import Tokenizer
from gpt_lightning.tokenizer.base import CHAT_END, CHAT_START, END_OF_TEXT

CHATML = (
    "{% for message in messages %}"
    f"{{{{ '{CHAT_START}' + message['role'] + '\\n' + message['content'] + '{CHAT_END}' + '\\n' }}}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{CHAT_START}assistant\\n' }}}}{{% endif %}}"
)
"""ChatML as a Jinja template; it gives the same text as `encode_chat` and `encode_chat_prompt`."""


def tokenizer_files(tokenizer: Tokenizer, *, max_seq_len: int) -> dict[str, str]:
    """Build the tokenizer files of a Hugging Face folder.

    Unlike our tokenizer, `AutoTokenizer` turns text that spells a special token into that token. Generation ends at
    end-of-text or at the end of a chat turn.

    Args:
        tokenizer: The tokenizer to export.
        max_seq_len: Context length of the model, in tokens.

    Returns:
        File name -> content.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # uses tokenizer.json without changes
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],  # else transformers 4 passes token_type_ids too
    }
    if CHAT_START in tokenizer.special_ids:
        config["chat_template"] = CHATML
    ends = [tokenizer.special_ids[token] for token in (END_OF_TEXT, CHAT_END) if token in tokenizer.special_ids]
    return {
        "tokenizer.json": tokenizer.to_hf_json(),
        "tokenizer_config.json": to_json(config),
        "generation_config.json": to_json({"bos_token_id": tokenizer.eot_id, "eos_token_id": ends}),
    }


def check_vocabulary_size(tokenizer: Tokenizer | None, model: GPT) -> None:
    """Check that the model has an embedding row for every token id. A tokenizer of None passes.

    Raises:
        ValueError: The tokenizer has more ids than the model.
    """
    if tokenizer is not None and tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"model.vocab_size is {model.config.vocab_size}: it must be at least {tokenizer.vocab_size}, the number "
            f"of ids of tokenizer {tokenizer.name}. Choose the model's own tokenizer, or grow the vocabulary."
        )
