"""Which attention backend runs where, by device, dtype and what the queries see."""

import pytest
import torch

from gpt_lightning.model import attention_backends
from gpt_lightning.model.attention_backends import Backend, BackendTraits
from gpt_lightning.model.attention_mask import AttentionMask
from gpt_lightning.model.attention_selection import backend_obstacle, choose_backend, expected_backend
from gpt_lightning.model.part_registry import BACKENDS

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
WHOLE, NEWEST, CHUNK = AttentionMask(64, 64), AttentionMask(1, 64), AttentionMask(8, 64)
DOCUMENTS = AttentionMask(64, 64, first=torch.zeros(2, 64, dtype=torch.int64))


@pytest.mark.parametrize(
    ("capability", "dtype", "view", "dropout", "chosen"),
    [
        ((7, 5), torch.float16, WHOLE, 0.0, "sdpa_efficient"),
        ((7, 5), torch.float16, DOCUMENTS, 0.0, "sdpa_efficient"),
        ((8, 0), torch.bfloat16, WHOLE, 0.1, "sdpa_flash"),
        ((8, 9), torch.float16, DOCUMENTS, 0.0, "sdpa_flash"),
        ((9, 0), torch.bfloat16, WHOLE, 0.0, "sdpa_flash"),  # and not cuDNN's, as torch would
        ((9, 0), torch.bfloat16, NEWEST, 0.0, "sdpa_flash"),
        ((9, 0), torch.bfloat16, CHUNK, 0.0, "sdpa_efficient"),
        ((9, 0), torch.bfloat16, DOCUMENTS, 0.1, "sdpa_efficient"),
        ((9, 0), torch.float32, WHOLE, 0.0, "sdpa_efficient"),
        ((10, 0), torch.bfloat16, WHOLE, 0.0, "sdpa_flash"),
    ],
)
def test_auto_names_the_kernel_by_capability(
    capability: tuple[int, int],
    dtype: torch.dtype,
    view: AttentionMask,
    dropout: float,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(attention_backends, "_is_installed", lambda package: False)
    name, why = choose_backend("auto", CUDA, dtype, 64, view, dropout=dropout)
    assert name == chosen
    assert f"compute capability {capability[0]}.{capability[1]}" in why
    if chosen == "sdpa_flash":
        monkeypatch.setattr(attention_backends, "_is_installed", lambda package: True)
        assert choose_backend("auto", CUDA, dtype, 64, view, dropout=dropout)[0] == "flash"


@pytest.mark.parametrize(("dtype", "d_head"), [(torch.bfloat16, 20), (torch.float32, 6), (torch.float64, 64)])
def test_auto_leaves_odd_heads_to_torch(dtype: torch.dtype, d_head: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    name, why = choose_backend("auto", CUDA, dtype, d_head, WHOLE)
    assert name == "sdpa"
    assert "sdpa_efficient" in why


@pytest.mark.parametrize(
    ("dtype", "view", "dropout", "expected"),
    [
        (torch.bfloat16, DOCUMENTS, 0.0, "sdpa_flash"),
        (torch.bfloat16, DOCUMENTS, 0.1, "sdpa_efficient"),
        (torch.float32, WHOLE, 0.0, "sdpa_efficient"),
        (torch.float64, WHOLE, 0.0, "sdpa"),
    ],
)
def test_the_backend_of_another_machine_is_expected(
    dtype: torch.dtype, view: AttentionMask, dropout: float, expected: str
) -> None:
    assert expected_backend("auto", "cuda", dtype, 64, view, dropout=dropout) == expected
    assert expected_backend("auto", "cpu", dtype, 64, view, dropout=dropout) == "sdpa"
    assert expected_backend("manual", "cuda", dtype, 64, view, dropout=dropout) == "manual"


def test_only_a_standard_backend_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Backend(AttentionMask.mask, BACKENDS["manual"].attend, BackendTraits(dtypes=(torch.bfloat16,)))
    monkeypatch.setitem(BACKENDS, "own", own)
    assert choose_backend("own", CPU, torch.bfloat16, 64, WHOLE) == ("own", "as configured")
    with pytest.raises(ValueError, match=r"own cannot run: own needs bfloat16, and the dtype is float32\."):
        choose_backend("own", CPU, torch.float32, 64, WHOLE)


def test_a_kernel_says_why_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_backend("flash", CPU, torch.bfloat16, 64, WHOLE) == (
        "sdpa",
        "flash needs a CUDA device, and the device is cpu",
    )
    assert choose_backend("auto", CPU, torch.bfloat16, 64, WHOLE) == ("sdpa", "the device is cpu")
    assert choose_backend("manual", CPU, torch.float32, 64, WHOLE) == ("manual", "as configured")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(attention_backends, "_is_installed", lambda package: False)
    for name, dtype, d_head, view, dropout, why in (
        ("flash", torch.float32, 64, WHOLE, 0.0, "float16 or bfloat16, and the dtype is float32"),
        ("flash", torch.float16, 512, WHOLE, 0.0, "at most 256"),
        ("flash", torch.float16, 64, WHOLE, 0.0, "flash-attn is not installed"),
        ("sdpa_cudnn", torch.float16, 256, WHOLE, 0.0, "at most 128"),
        ("sdpa_flash", torch.float16, 60, WHOLE, 0.0, "a multiple of 8, and it is 60"),
        ("sdpa_flash", torch.float16, 64, DOCUMENTS, 0.1, "not support dropout with separate documents"),
        ("sdpa_flash", torch.float16, 64, CHUNK, 0.0, "not support an explicit mask"),
    ):
        assert why in str(backend_obstacle(name, CUDA, dtype, d_head, view, dropout=dropout))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "needs compute capability 8.0 or newer, and the device has 7.5" in str(
        backend_obstacle("sdpa_flash", CUDA, torch.float16, 64, WHOLE)
    )
