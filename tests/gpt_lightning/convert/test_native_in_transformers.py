"""The native folder in transformers: every model has the same logits and generates the same tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_lightning.convert import from_native, to_native
from gpt_lightning.generation import Sampling, generate
from gpt_lightning.model.part_registry import NORMS
from gpt_lightning.tokenizer import load_tokenizer
from tests.gpt_lightning.tiny_models import FAMILIES, GPT2, build

MODELS = {**FAMILIES, "rangeflow": GPT2 | {"feed_forward": "gelu"}, "untied": GPT2 | {"tie_embeddings": False}}


@pytest.mark.parametrize("name", MODELS)
def test_transformers_loads_and_generates(name: str, tiny_data: Path, tmp_path: Path, transformers: Any) -> None:
    tokenizer = load_tokenizer(tiny_data / "bpe_512")
    model = build(**MODELS[name], vocab_size=512 + 32, max_seq_len=64).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    to_native(model, tmp_path / "out", tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True).eval()
    assert (theirs.head.weight is theirs.embedding.weight) == model.config.tie_embeddings
    token_ids = torch.arange(96).view(3, 32) * 5
    with torch.no_grad():
        torch.testing.assert_close(theirs(token_ids).logits, model(token_ids), atol=1e-5, rtol=1e-5)
        loss = theirs(token_ids, labels=token_ids).loss
        torch.testing.assert_close(loss, model.loss(token_ids[:, :-1], token_ids[:, 1:]), atol=1e-5, rtol=1e-5)
    prompts = [[tokenizer.eot_id, *tokenizer.encode("def add(a, b):"[start:])] for start in range(0, 8, 2)]
    ours = generate(model, prompts, 30, sampling=Sampling(temperature=0))
    longest = max(map(len, prompts))
    padded = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    options: dict[str, Any] = {"max_new_tokens": 30, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    for use_cache in (True, False):
        answer = theirs.generate(padded, attention_mask=mask, use_cache=use_cache, **options)
        assert answer[:, longest:].tolist() == ours


def test_a_folder_that_transformers_saved_is_read_back(tmp_path: Path, transformers: Any) -> None:
    model = build(**FAMILIES["modern"], eot_id=3)
    to_native(model, tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    theirs.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "modeling_gpt_lightning.py").is_file()
    back = from_native(tmp_path / "again")
    assert all(torch.equal(weight, back.state_dict()[key]) for key, weight in model.state_dict().items())
    for option in ("n_kv_heads", "feed_forward", "qk_norm", "logit_soft_cap", "tie_embeddings", "eot_id"):
        assert getattr(back.config, option) == getattr(model.config, option)


def test_the_model_file_stands_alone(tmp_path: Path) -> None:
    """It names every option that changes the logits, and imports nothing of ours."""
    to_native(build(**GPT2), tmp_path / "out")
    code = (tmp_path / "out" / "modeling_gpt_lightning.py").read_text()
    imported = {line.split()[1].split(".")[0] for line in code.splitlines() if line.startswith(("import ", "from "))}
    assert imported == {"torch", "transformers", "typing"}
    options = json.loads((tmp_path / "out" / "config.json").read_text())
    assert options["auto_map"]["AutoModelForCausalLM"] == "modeling_gpt_lightning.GPTLightningForCausalLM"


def test_a_model_with_own_parts_has_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code would compute something else, or nothing."""
    monkeypatch.setitem(NORMS, "mine", NORMS["layernorm"])
    model = build(**GPT2 | {"norm": "mine"})
    to_native(model, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert from_native(tmp_path / "out").config.norm == "mine"
