"""Shards that are not what they were are refused before anything is built or written, with their file and the place in it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_modules import SourceShards
from data_modules.corpora import FunctionCorpus
from data_modules.preparation import PreparationSettings, PreparationTarget, adopt_shards, prepare_source
from gpt_lightning.tokenizer import load_tokenizer
from running.commands.train import train
from running.config.compose import compose_config
from running.config.run_config import RunConfig
from running.training.prepared_data import check_undamaged, open_sources
from tests.conftest import TINY, start
from tests.run_files import as_if_killed, contents, final_weights, metrics, same_bits

Damage = Callable[[Path], list[str]]  # done to a data folder; what must be said of it
HEADER = 128


@pytest.fixture
def data_dir(tiny_data: Path, tmp_path: Path) -> Path:
    """To be damaged."""
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


@pytest.fixture
def config(data_dir: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    options = [*TINY, "name=run", f"data_dir={data_dir}", f"runs_dir={tmp_path / 'runs'}"]
    return lambda *more: compose_config("train", [*options, *more])


def flip(path: Path, at: int, bits: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= bits
    path.write_bytes(content)


def flipped(file: str, at: int, *, bits: int = 1) -> Damage:
    def damage(folder: Path) -> list[str]:
        flip(folder / file, at, bits)
        end = (folder / file).stat().st_size
        return [f"{folder / file} differs from source.json between bytes 0 and {end:,}"]

    return damage


def beyond_the_vocabulary(folder: Path) -> list[str]:
    path = folder / "stdlib" / "val" / "tokens_0000.npy"
    id_ = int(np.load(path)[100]) ^ 2 << 8  # its high byte
    (said,) = flipped("stdlib/val/tokens_0000.npy", HEADER + 2 * 100 + 1, bits=2)(folder)
    return [said, f"has the id {id_} at byte {HEADER + 200:,}, but tokenizer bpe_512 has 512 ids"]


def resized(file: str, new_size: Callable[[int], int]) -> Damage:
    def damage(folder: Path) -> list[str]:
        path = folder / file
        content = path.read_bytes()
        size = new_size(len(content))
        path.write_bytes(content.ljust(size, b"\0")[:size])
        torn = ", which end inside an id" if size % 2 else ""
        return [f"{path} has {size:,} bytes{torn}: it must have {len(content):,}"]

    return damage


def added(folder: Path) -> list[str]:
    shutil.copy(folder / "pydoc" / "val" / "tokens_0000.npy", folder / "stdlib" / "train" / "tokens_0077.npy")
    return [f"{folder / 'stdlib' / 'train' / 'tokens_0077.npy'} is not in source.json"]


def missing(folder: Path) -> list[str]:
    path = folder / "docstrings" / "val" / "mask_0000.npy"
    path.unlink()
    return [f"{path} is missing"]


def renamed(folder: Path) -> list[str]:
    path = folder / "stdlib" / "train" / "tokens_0001.npy"
    path.rename(path.with_name("tokens_1.npy"))
    return [f"{path} is missing", f"{path.with_name('tokens_1.npy')} is not in source.json"]


def replaced(folder: Path) -> list[str]:
    """By ids as good as its own, and as many of them."""
    path = folder / "stdlib" / "train" / "tokens_0000.npy"
    np.save(path, np.load(path)[::-1])
    return [f"{path} differs from source.json between bytes 0 and {path.stat().st_size:,}"]


def of_a_source_json(folder: Path) -> list[str]:
    path = folder / "readmes" / "source.json"
    text = path.read_text()
    assert '"eot_id": 0' in text
    path.write_text(text.replace('"eot_id": 0', '"eot_id": 1'))
    return [f"{path} was changed after it was written"]


DAMAGES: dict[str, Damage] = {
    "a flipped byte": flipped("stdlib/train/tokens_0001.npy", 10_000),
    "a flipped byte of a mask": flipped("docstrings/train/mask_0000.npy", 1_000),
    "a flipped byte of what is for validation": flipped("pydoc/val/tokens_0000.npy", HEADER),
    "a flipped byte of a header": flipped("stdlib/train/tokens_0000.npy", 3),
    "another type in a header": flipped("stdlib/train/tokens_0000.npy", 21, bits=ord("<") ^ ord(">")),
    "an id beyond the vocabulary": beyond_the_vocabulary,
    "truncated": resized("stdlib/train/tokens_0001.npy", lambda size: size - 5_000),
    "truncated to nothing": resized("stdlib/train/tokens_0001.npy", lambda size: 0),
    "truncated within its header": resized("stdlib/val/tokens_0000.npy", lambda size: 100),
    "of odd length": resized("stdlib/train/tokens_0000.npy", lambda size: size - 1),
    "longer": resized("stdlib/train/tokens_0000.npy", lambda size: size + 2),
    "longer by half an id": resized("stdlib/train/tokens_0000.npy", lambda size: size + 1),
    "added": added,
    "missing": missing,
    "renamed": renamed,
    "replaced": replaced,
    "source.json": of_a_source_json,
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_refused_before_anything_is_written(
    kind: str, data_dir: Path, config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    said = DAMAGES[kind](data_dir / "bpe_512")
    with pytest.raises(ValueError, match=re.escape("and prepare it again")) as refusal:
        train(config())
    assert all(clause in str(refusal.value) for clause in said), str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_shards_of_others_are_verified_too(
    data_dir: Path, config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    folder, theirs = data_dir / "bpe_512" / "stdlib", tmp_path / "theirs"
    theirs.mkdir()
    for split in ("train", "val"):
        stream = getattr(SourceShards(folder), split)
        stream.read(0, len(stream)).tofile(theirs / f"{split}.bin")
    shutil.rmtree(folder)
    adopt_shards(
        theirs,
        PreparationTarget(name="stdlib", tokenizer=load_tokenizer(data_dir / "bpe_512"), folder=folder, licence="test"),
        format="nanogpt",
        val_fraction=0.1,
    )
    assert train(config("max_steps=3"))["step"] == 3
    size = (theirs / "train.bin").stat().st_size
    flip(theirs / "train.bin", 2_001, 128)
    said = rf"train\.bin differs .* bytes 0 and {size:,}, and has the id \d+ at byte 2,000, but tokenizer bpe_512 has"
    with pytest.raises(ValueError, match=said):
        train(config("name=damaged"))
    flip(theirs / "train.bin", 2_001, 128)
    (theirs / "train.bin").write_bytes((theirs / "train.bin").read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"train\.bin has {size - 1:,} bytes, which end inside an id: it must have"):
        train(config("name=damaged"))
    assert not (tmp_path / "runs" / "damaged").exists()


@pytest.mark.parametrize("kind", ["a flipped byte", "replaced", "added"])
def test_who_wants_to_trains_on_what_is_there(
    kind: str, data_dir: Path, config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    DAMAGES[kind](data_dir / "bpe_512")
    assert train(config("max_steps=3", "data.verify=false"))["step"] == 3


def test_a_run_goes_on_only_with_what_it_was_begun_with(
    data_dir: Path, config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Damaged, its data is refused and the run left as it was; put back, the run is the one that nobody disturbed."""
    train(config())
    straight = tmp_path / "runs" / "run"
    killed = as_if_killed(straight, tmp_path / "killed", after=4)
    before = contents(killed)
    go_on = [f"runs_dir={tmp_path / 'killed'}"]
    shutil.copytree(data_dir / "bpe_512", tmp_path / "whole")
    for damage in DAMAGES.values():
        said = damage(data_dir / "bpe_512")
        with pytest.raises(ValueError, match=re.escape(said[0])):
            train(config(*go_on))
        assert contents(killed) == before
        shutil.rmtree(data_dir / "bpe_512")
        shutil.copytree(tmp_path / "whole", data_dir / "bpe_512")
    train(config(*go_on))
    assert metrics(killed) == metrics(straight)
    assert same_bits(final_weights(killed), final_weights(straight))
    DAMAGES["a flipped byte"](data_dir / "bpe_512")
    assert train(config(*go_on))["step"] == 12  # nothing is left to be trained on


def test_a_shard_that_was_replaced_together_with_its_source_json_is_other_data(
    data_dir: Path, config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    train(config("max_steps=8"))
    before = contents(tmp_path / "runs")
    folder = data_dir / "bpe_512" / "stdlib"
    shutil.rmtree(folder)
    prepare_source(
        FunctionCorpus(lambda: (f"text number {n} " * 50 for n in range(100))),
        PreparationTarget(name="stdlib", tokenizer=load_tokenizer(data_dir / "bpe_512"), folder=folder, licence="test"),
        PreparationSettings(val_fraction=0.1),
    )
    for verify in ("true", "false"):
        with pytest.raises(ValueError, match=r"source stdlib has changed since .*runs/run was started"):
            train(config("max_steps=8", f"data.verify={verify}"))
    assert contents(tmp_path / "runs") == before


def test_who_has_to_wait_is_told(
    data_dir: Path,
    config: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, sources = open_sources(RunConfig.of(config()))
    check_undamaged(RunConfig.of(config()), sources)
    assert capsys.readouterr().out == ""
    n_bytes = sum(path.stat().st_size for path in data_dir.rglob("*.npy"))
    monkeypatch.setattr("running.training.prepared_data._MANY_BYTES", n_bytes)
    check_undamaged(RunConfig.of(config()), sources)
    assert capsys.readouterr().out == "verifying 0.0 GB of shards; data.verify=false skips this\n"
    monkeypatch.setattr("running.training.prepared_data._MANY_BYTES", n_bytes + 1)
    check_undamaged(RunConfig.of(config()), sources)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("variable", ["LOCAL_RANK", "SLURM_LOCALID"])
def test_of_the_ranks_of_a_node_the_first_looks(
    variable: str, data_dir: Path, config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    DAMAGES["a flipped byte"](data_dir / "bpe_512")
    _, sources = open_sources(RunConfig.of(config()))
    monkeypatch.setenv(variable, "1")
    check_undamaged(RunConfig.of(config()), sources)
    monkeypatch.setenv(variable, "0")
    with pytest.raises(ValueError, match=r"differs from source\.json"):
        check_undamaged(RunConfig.of(config()), sources)


def test_a_user_sees_no_traceback(data_dir: Path, tmp_path: Path) -> None:
    (said,) = DAMAGES["of odd length"](data_dir / "bpe_512")
    answer = start([*TINY, "name=run", f"data_dir={data_dir}", f"runs_dir={tmp_path / 'runs'}"])
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"error: {said}")
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "runs").exists()
