"""The Modelfile with which `ollama create` imports a GGUF file."""

from gpt_lightning.tokenizer import Tokenizer
from gpt_lightning.tokenizer.base import CHAT_END, CHAT_START

_CHATML = (  # a Go template
    f'"""{{{{ range .Messages }}}}{CHAT_START}{{{{ .Role }}}}\n'
    f"{{{{ .Content }}}}{CHAT_END}\n"
    f'{{{{ end }}}}{CHAT_START}assistant\n"""'
)


def ollama_modelfile(file_name: str, tokenizer: Tokenizer, *, max_seq_len: int) -> str:
    """Return the content of a Modelfile. A tokenizer with chat tokens gets the ChatML template.

    Args:
        file_name: Name of the GGUF file in the same folder.
        tokenizer: The model's tokenizer.
        max_seq_len: Context length of the model, in tokens.
    """
    lines = [f"FROM ./{file_name}", f"PARAMETER num_ctx {max_seq_len}"]
    if CHAT_START in tokenizer.special_ids:
        lines += [f"TEMPLATE {_CHATML}", f'PARAMETER stop "{CHAT_START}"', f'PARAMETER stop "{CHAT_END}"']
    else:
        lines.append('TEMPLATE "{{ .Prompt }}"')
    return "\n".join(lines) + "\n"
