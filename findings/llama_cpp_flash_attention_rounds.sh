#!/usr/bin/env bash
# xllamacpp 2026.10.11549 (llama.cpp), gguf 0.19.0, on a CPU: flash attention rounds a model of f32 to 16 bits.
#
# Good guess: with f32 weights and an f32 KV cache (-ctk f32 -ctv f32), attention on a CPU is computed in f32, and flash attention,
# which is on by default, changes only the order of the sums.
# Behaviour: with flash attention the log-probabilities are wrong by 1e-3 or more, as with half precision, so greedy text may
# differ from that of the exported model. Without flash attention (-fa off) they agree with float64 to f32 accuracy.
# Output seen:
#   flash attention off: largest error 1.6e-06
#   flash attention on: largest error 7.5e-03
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder/model.gguf" 2>/dev/null <<'PYTHON'
import json
import sys
import urllib.request

import gguf
import numpy as np
import xllamacpp

path, (width, heads, hidden, vocabulary) = sys.argv[1], (64, 2, 96, 300)
random = np.random.default_rng(0)


def matrix(rows, columns):
    return random.normal(0, 0.3, (rows, columns)).astype(np.float32)


weights = {"token_embd.weight": matrix(vocabulary, width), "output.weight": matrix(vocabulary, width)}
weights |= {f"blk.0.attn_{part}.weight": matrix(width, width) for part in ("q", "k", "v", "output")}
weights |= {"blk.0.ffn_gate.weight": matrix(hidden, width), "blk.0.ffn_up.weight": matrix(hidden, width)}
weights |= {"blk.0.ffn_down.weight": matrix(width, hidden)}
weights |= {f"{norm}.weight": np.ones(width, np.float32) for norm in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm")}
writer = gguf.GGUFWriter(path, "llama")
for add, value in (
    (writer.add_context_length, 64),
    (writer.add_embedding_length, width),
    (writer.add_block_count, 1),
    (writer.add_feed_forward_length, hidden),
    (writer.add_head_count, heads),
    (writer.add_layer_norm_rms_eps, 1e-5),
    (writer.add_tokenizer_model, "gpt2"),
    (writer.add_tokenizer_pre, "gpt-2"),
    (writer.add_token_list, [f"<{number}>" for number in range(vocabulary)]),
    (writer.add_token_merges, ["a b"]),
    (writer.add_eos_token_id, 0),
):
    add(value)
for name, weight in weights.items():
    writer.add_tensor(name, weight)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
prompt = random.integers(1, vocabulary, 48).tolist()


def reference():
    """The log-probabilities after the prompt, in float64."""
    w = {name: weight.astype(np.float64) for name, weight in weights.items()}
    norm = lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    size = width // heads
    angles = np.outer(np.arange(len(prompt)), 10_000.0 ** (-np.arange(0, size, 2) / size))[:, None]

    def rotated(x):
        x = x.reshape(len(prompt), heads, size // 2, 2)
        a, b = x[..., 0], x[..., 1]
        turned = (a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles))
        return np.stack(turned, -1).reshape(len(prompt), heads, size)

    x = w["token_embd.weight"][prompt]
    q, k, v = (norm(x) @ w[f"blk.0.attn_{part}.weight"].T for part in "qkv")
    scores = np.einsum("qhd,khd->hqk", rotated(q), rotated(k)) / np.sqrt(size)
    scores = np.where(np.tri(len(prompt), dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    mixed = np.einsum("hqk,khd->qhd", shares, v.reshape(len(prompt), heads, size)).reshape(len(prompt), width)
    x = x + mixed @ w["blk.0.attn_output.weight"].T
    gate, up = (norm(x) @ w[f"blk.0.ffn_{part}.weight"].T for part in ("gate", "up"))
    x = x + (gate / (1 + np.exp(-gate)) * up) @ w["blk.0.ffn_down.weight"].T
    logits = norm(x)[-1] @ w["output.weight"].T
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def largest_error(flash):
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup = path, 64, 1, False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    kinds = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    body = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 20}
    request = urllib.request.Request(
        f"{server.listening_address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    (token,) = json.load(urllib.request.urlopen(request))["completion_probabilities"]
    return max(abs(entry["logprob"] - exact[entry["id"]]) for entry in token["top_logprobs"])


exact = reference()
errors = {name: largest_error(name == "on") for name in ("off", "on")}
for name, error in errors.items():
    print(f"flash attention {name}: largest error {error:.1e}", flush=True)
assert errors["off"] < 2e-5, "the behaviour has changed"
assert errors["on"] > 50 * errors["off"], "the behaviour has changed"
PYTHON
