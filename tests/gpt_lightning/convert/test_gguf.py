"""GGUF files: llama.cpp generates the same tokens and splits text alike."""

import json
import re
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from gpt_lightning.convert import to_gguf
from gpt_lightning.generation import Sampling, generate
from gpt_lightning.model import GPT
from gpt_lightning.tokenizer import load_tokenizer
from gpt_lightning.tokenizer.base import Message
from gpt_lightning.tokenizer.byte_level_check import HARD_TEXTS
from tests.gpt_lightning.convert.llama_cpp import LlamaCpp
from tests.gpt_lightning.tiny_models import GPT2, LLAMA, MODERN, build

TEXT = "def add(a, b):\n    return a + b  # the sum of two numbers, as in 2 + 3 = 5\n"
FAMILIES = {"gpt2": GPT2, "llama": LLAMA | {"n_kv_heads": 2}, "llama tied": LLAMA | {"tie_embeddings": True}}


def model_of(family: str, vocab_size: int) -> GPT:
    """A model with padded vocabulary whose logits are far apart."""
    model = build(**FAMILIES[family], vocab_size=vocab_size + 64, max_seq_len=128, d_model=64, d_ff=96)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_generates_the_same_tokens(family: str, tiny_data: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_data / "bpe_512")
    model = model_of(family, tokenizer.vocab_size)
    file = to_gguf(model, tmp_path / "out", tokenizer=tokenizer, ollama=True)
    theirs = LlamaCpp(file, max_seq_len=128)
    for text in (*HARD_TEXTS[1:], TEXT):
        assert theirs.encode(text) == [tokenizer.eot_id, *tokenizer.encode(text)]
    ends = set(tokenizer.special_ids.values())
    compared = 0
    for start in range(0, 60, 6):
        prompt = [tokenizer.eot_id, *tokenizer.encode(TEXT[start:])]
        (ours,) = generate(
            model,
            [prompt],
            40,
            sampling=Sampling(temperature=0),
            stop_ids=sorted(ends),
            vocab_size=tokenizer.vocab_size,
        )
        assert theirs.greedy(prompt, 40)[: len(ours)] == ours
        compared += len(ours)
    assert compared > 200
    assert (tmp_path / "out" / "Modelfile").read_text().startswith("FROM ./out.gguf\nPARAMETER num_ctx 128\n")


def test_chats_are_framed_alike(tiny_data: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_data / "bpe_512")
    file = to_gguf(model_of("llama", tokenizer.vocab_size), tmp_path / "out", tokenizer=tokenizer)
    theirs = LlamaCpp(file, max_seq_len=128)
    chat: list[Message] = [{"role": "user", "content": "Add 2 and 3."}, {"role": "assistant", "content": "5"}]
    chat += [{"role": "user", "content": "And 4?"}]
    prompt = str(theirs.ask("/apply-template", messages=chat)["prompt"])
    assert theirs.encode(prompt, special=True) == [tokenizer.eot_id, *tokenizer.encode_chat_prompt(chat)]


@pytest.mark.parametrize(("quantization", "bound"), [("f16", 1e-3), ("q8_0", 0.02)])
def test_quantized_weights_are_near(quantization: str, bound: float, tiny_data: Path, tmp_path: Path) -> None:
    """The largest error of a matrix, relative to its largest weight. Vectors and positions are exact."""
    tokenizer = load_tokenizer(tiny_data / "bpe_512")
    model = model_of("gpt2", tokenizer.vocab_size)
    exact, near = (
        {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(file).tensors}
        for file in (
            to_gguf(model, tmp_path / kind, tokenizer=tokenizer, quantization=kind) for kind in ("f32", quantization)
        )
    )
    for name, weight in exact.items():
        error = abs(near[name] - weight).max()
        assert error <= bound * abs(weight).max(), name
        assert (error == 0) == (weight.ndim == 1 or name.startswith("position_embd")), name


def test_transformers_reads_the_file(tiny_data: Path, tmp_path: Path, transformers: Any) -> None:
    tokenizer = load_tokenizer(tiny_data / "bpe_512")
    model = model_of("llama", tokenizer.vocab_size)
    file = to_gguf(model, tmp_path / "out", tokenizer=tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    ids = torch.tensor([[tokenizer.eot_id, *tokenizer.encode(TEXT)]])
    with torch.no_grad():
        ours = model(ids)[..., : tokenizer.vocab_size]
        torch.testing.assert_close(theirs(ids).logits, ours, rtol=1e-4, atol=1e-4)


REFUSED = {
    "relu2": (MODERN, "model.feed_forward is relu2: the format gguf (architecture llama) supports only swiglu"),
    "exact gelu": (GPT2 | {"feed_forward": "gelu"}, "model.feed_forward is gelu: the format gguf (architecture gpt2)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_cannot_express_is_refused(name: str, tiny_data: Path, tmp_path: Path) -> None:
    choices, sentence = REFUSED[name]
    tokenizer = load_tokenizer(tiny_data / "bpe_512")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        to_gguf(build(**choices, vocab_size=512), tmp_path / "out", tokenizer=tokenizer)
    assert not list(tmp_path.iterdir())


def test_rows_that_blocks_do_not_divide_are_refused(tiny_data: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_data / "bpe_512")
    model = build(**LLAMA, vocab_size=512, d_ff=40)
    with pytest.raises(ValueError, match=r"blk\.0\.ffn_down\.weight has rows of 40 numbers: .* a multiple of 32"):
        to_gguf(model, tmp_path / "out", tokenizer=tokenizer, quantization="q8_0")
    assert not list(tmp_path.iterdir())


def test_another_splitting_rule_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    content = json.loads((tiny_data / "bpe_512" / "tokenizer.json").read_text())
    digits = {"type": "Digits", "individual_digits": True}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, content["pre_tokenizer"]]}
    path = tmp_path / "digits" / "tokenizer.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"tokenizer digits splits text by Sequence: format=gguf supports only GPT-2's"
    ):
        to_gguf(build(**LLAMA, vocab_size=512), tmp_path / "out", tokenizer=load_tokenizer(path))
    assert not (tmp_path / "out").exists()
