"""The files that make `transformers.AutoTokenizer` give the ids of one of our tokenizers."""

from gpt_lightning.convert.model_folder import to_json
from gpt_lightning.model import GPT
from gpt_lightning.tokenizer import Tokenizer
from gpt_lightning.tokenizer.base import CHAT_END, CHAT_START, END_OF_TEXT

CHATML = (
    "{% for message in messages %}"
    f"{{{{ '{CHAT_START}' + message['role'] + '\\n' + message['content'] + '{CHAT_END}' + '\\n' }}}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{CHAT_START}assistant\\n' }}}}{{% endif %}}"
)
"""ChatML in Jinja, as `encode_chat` and `encode_chat_prompt` write it."""


def tokenizer_files(tokenizer: Tokenizer, *, max_seq_len: int) -> dict[str, str]:
    """File name -> text.

    There, a text that spells a special token becomes that token. Generating ends at the end of a text or of a chat's turn.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # it takes tokenizer.json as it is
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],  # transformers 4 adds token_type_ids, as embeddings
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
    """A model must have a row for every id.

    Raises:
        ValueError: it has not.
    """
    if tokenizer is not None and tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"tokenizer {tokenizer.name} has {tokenizer.vocab_size} ids, more than the model's vocab_size "
            f"{model.config.vocab_size}: choose its own tokenizer, or let the vocabulary grow."
        )
