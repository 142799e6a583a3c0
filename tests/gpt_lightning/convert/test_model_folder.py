"""Folders are written whole or not at all; one door opens all; vocabularies grow."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from gpt_lightning.convert import grow_vocabulary, load_model, model_folder_io, to_hf, to_native
from gpt_lightning.model import GPT
from tests.gpt_lightning.convert.foreign_models import GPT25, RangeFlow
from tests.gpt_lightning.convert.oracles import foreign, same, same_bits, shaken
from tests.gpt_lightning.tiny_models import GPT2, LLAMA, VOCAB_SIZE, build


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("out", "file"):
        for write in (to_native, lambda model, folder: to_hf(model, folder, format="gpt2")):
            with pytest.raises(ValueError, match="exists and is not an empty folder"):
                write(build(**GPT2), tmp_path / name)
    assert {path.name for path in tmp_path.rglob("*")} == {"out", "mine.txt", "file"}


def test_an_empty_folder_and_an_interrupted_export_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / ".out.tmp").mkdir()
    (tmp_path / ".out.tmp" / "old.json").touch()
    to_native(build(**GPT2), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json",
        "modeling_gpt_lightning.py",
        model_folder_io.WEIGHTS,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1  # whoever may read one file may read the other


@pytest.mark.parametrize(
    ("function", "error"),
    [("os.fsync", OSError), ("gpt_lightning.convert.model_folder_io.save_file", SafetensorError)],
)
def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, error: type[Exception]
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error("no space left on device")

    monkeypatch.setattr(function, fail)
    with pytest.raises(OSError, match="no space left"):
        to_hf(build(**GPT2), tmp_path / "out", format="gpt2")
    assert not list(tmp_path.iterdir())


# One door


def test_one_door_opens_every_folder_and_file(tmp_path: Path) -> None:
    model = shaken(build(**LLAMA))
    to_native(model, tmp_path / "native")
    to_hf(model, tmp_path / "hf", format="llama")
    for name in ("native", "hf"):
        assert same_bits(load_model(tmp_path / name).state_dict(), model.state_dict())
        assert load_model(tmp_path / name).config.attention == "auto"
    for key, theirs in (("model_state_dict", foreign(RangeFlow)), ("model_state", foreign(GPT25))):
        torch.save({key: theirs.state_dict()}, tmp_path / "model.pt")
        assert same(load_model(tmp_path / "model.pt"), theirs)


# Growing


@pytest.mark.parametrize("choices", [GPT2, LLAMA], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vocabulary_grows_by_the_mean(choices: dict[str, Any], dtype: torch.dtype) -> None:
    model: GPT = shaken(build(**choices)).to(dtype)
    grown = grow_vocabulary(model, 128)
    assert grown.config.vocab_size == 128
    for old, new in ((model.embedding, grown.embedding), (model.head, grown.head)):
        assert torch.equal(new.weight[:VOCAB_SIZE], old.weight)
        assert new.weight.dtype == dtype
        mean = old.weight.float().mean(0).to(dtype)
        assert torch.equal(new.weight[VOCAB_SIZE:], mean.expand(128 - VOCAB_SIZE, -1))
    assert (grown.head.weight is grown.embedding.weight) == model.config.tie_embeddings
    if dtype == torch.float32:
        assert same(lambda ids: grown(ids)[..., :VOCAB_SIZE], model, tolerance=1e-5)
    assert model.config.vocab_size == VOCAB_SIZE
    assert same_bits(grow_vocabulary(model, VOCAB_SIZE).state_dict(), model.state_dict())


def test_a_vocabulary_never_shrinks() -> None:
    with pytest.raises(ValueError, match="vocab_size is 96: it must be at least 97"):
        grow_vocabulary(build(**GPT2), 96)
    with pytest.raises(ValueError, match="vocab_size is '128': it must be a whole number"):
        grow_vocabulary(build(**GPT2), "128")  # type: ignore[arg-type]
