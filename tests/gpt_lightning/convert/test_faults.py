"""Whatever is wrong with a file is named."""

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gpt_lightning.convert import (
    from_gpt2_5,
    from_hf,
    from_native,
    from_rangeflow,
    load_model,
    model_folder_io,
    to_hf,
    to_native,
)
from tests.gpt_lightning.convert.foreign_models import GPT25, RangeFlow
from tests.gpt_lightning.convert.oracles import (
    foreign,
)
from tests.gpt_lightning.tiny_models import LLAMA, build


def save_hf(weights: dict[str, Tensor], folder: Path) -> Path:
    to_hf(build(**LLAMA), folder / "model", format="llama")
    save_file(weights, folder / "model" / model_folder_io.WEIGHTS)
    return folder / "model"


def save_native(weights: dict[str, Tensor], folder: Path) -> Path:
    to_native(build(**LLAMA), folder / "model")
    save_file(weights, folder / "model" / model_folder_io.WEIGHTS)
    return folder / "model"


def save_pt(key: str) -> Callable[[dict[str, Tensor], Path], Path]:
    def save(weights: dict[str, Tensor], folder: Path) -> Path:
        torch.save({key: weights}, folder / "model.pt")
        return folder / "model.pt"

    return save


def hf_weights(tmp_path: Path) -> dict[str, Tensor]:
    to_hf(build(**LLAMA), tmp_path / "whole", format="llama")
    return load_file(tmp_path / "whole" / model_folder_io.WEIGHTS)


KINDS: dict[str, tuple[Callable[[Path], dict[str, Tensor]], Callable[[dict[str, Tensor], Path], Path], list[str]]] = {
    "hf": (hf_weights, save_hf, ["model.layers.1.self_attn.k_proj.weight", "model.norm.weight"]),
    "native": (
        lambda _: build(**LLAMA).state_dict(),
        save_native,
        ["embedding.weight", "blocks.1.attention.qkv.weight", "head.weight"],
    ),
    "rangeflow": (
        lambda _: foreign(RangeFlow).state_dict(),
        save_pt("model_state_dict"),
        ["blocks.1.attn.qkv_proj.weight", "blocks.0.ln2.bias", "blocks.0.ff.linear1.weight", "token_embed.weight"],
    ),
    "gpt2_5": (
        lambda _: foreign(GPT25).state_dict(),
        save_pt("model_state"),
        ["tblocks.1.mhsa.Wk.weight", "tblocks.0.ffn.w2", "tblocks.0.mhsa.rope.cos", "tblocks.1.mhsa.rope.sin"],
    ),
}
CASES = [(kind, key) for kind, (_, _, keys) in KINDS.items() for key in keys]


@pytest.mark.parametrize(("kind", "key"), CASES)
def test_a_fault_is_named_by_its_key(tmp_path: Path, kind: str, key: str) -> None:
    make, save, _ = KINDS[kind]
    whole = make(tmp_path)
    faults = {
        "missing": {k: v for k, v in whole.items() if k != key},
        "shape": whole | {key: whole[key][:-1].clone()},
        "flat": whole | {key: whole[key].flatten()[:-2].clone()},
        "integers": whole | {key: whole[key].long()},
        "doubles": whole | {key: whole[key].double()},
        "mixed": whole | {key: whole[key].bfloat16()},
    }
    if "rope" in key:  # a table is dropped: only what it says matters
        faults = {name: fault for name, fault in faults.items() if name not in ("doubles", "mixed")}
    for name, fault in faults.items():
        (tmp_path / name).mkdir()
        path = save(fault, tmp_path / name)
        with pytest.raises(ValueError, match=re.escape(str(path))) as refusal:
            load_model(path)
        # a matrix that says how large the model is: a smaller one makes another weight too large
        decides_sizes = name == "shape" and key.endswith(
            ("0.ff.linear1.weight", "0.mhsa.rope.cos", "token_embed.weight")
        )
        assert key in str(refusal.value) or decides_sizes, (name, str(refusal.value))
        assert str(refusal.value).count("\n") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_stranger_is_named(tmp_path: Path, kind: str) -> None:
    make, save, _ = KINDS[kind]
    path = save(make(tmp_path) | {"stranger.weight": torch.ones(2, 2)}, tmp_path)
    with pytest.raises(ValueError, match=r"has stranger\.weight, which the model does not have"):
        load_model(path)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.marker,))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    def zipped(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "nothing")

    makers: dict[str, Callable[[Path], object]] = {
        "bytes": lambda path: path.write_bytes(bytes(range(256)) * 50),
        "empty": lambda path: path.write_bytes(b""),
        "text": lambda path: path.write_text("Once upon a time,"),
        "zip": zipped,
        "pickle": lambda path: path.write_bytes(pickle.dumps({"model_state_dict": {}})),
        "malicious": lambda path: torch.save({"model_state_dict": Malicious(tmp_path / "marker")}, path),
        "list": lambda path: torch.save([1, 2], path),
        "strange dict": lambda path: torch.save({"weights": {}}, path),
        "half": lambda path: path.write_bytes(b"PK\x03\x04"),
        "no weights": lambda path: torch.save({"model_state_dict": 3}, path),
        "no tensors": lambda path: torch.save({"model_state": {"emb.weight": 3}}, path),
        "no matrix": lambda path: torch.save({"model_state": {"emb.weight": torch.ones(3)}}, path),
    }
    for name, make in makers.items():
        path = tmp_path / f"{name}.pt"
        make(path)
        for read in (load_model, from_rangeflow, from_gpt2_5):
            with pytest.raises(ValueError, match=re.escape(str(path))) as refusal:
                read(path)
            assert "\n" not in str(refusal.value)
    assert not (tmp_path / "marker").exists()


def test_what_is_no_folder_of_a_model_is_refused(tmp_path: Path) -> None:
    for read in (load_model, from_hf, from_native, from_rangeflow):
        with pytest.raises(ValueError, match="does not exist"):
            read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"is not a model: it must be a run directory"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="holds list: it must hold a JSON object"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match=r"lacks model\.safetensors"):
        from_hf(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(
        ValueError, match=r"pytorch_model\.bin, which can execute code when loaded: it must have safetensors"
    ):
        from_hf(tmp_path)
    (tmp_path / model_folder_io.WEIGHTS).write_bytes(b"rubbish" * 20)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or not a safetensors file"):
        from_hf(tmp_path)
    with pytest.raises(ValueError, match=r"does not have model_type gpt_lightning: load models of other projects"):
        from_native(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt_lightning", "width": 3}')
    with pytest.raises(ValueError, match=r"config\.json: .*unexpected keyword argument 'width'"):
        from_native(tmp_path)
