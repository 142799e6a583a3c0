"""Inputs that were once read as something else without a word: each is read as what it is, or refused in one sentence."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from data_modules import SourceShards
from gpt_lightning.tokenizer import Message, load_tokenizer, train_bpe
from running.commands.prepare import prepare
from running.config.compose import compose_config
from running.config.quote_for_hydra import quote_text_settings
from running.evaluation.chat_repl import ReplSession

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LONG = [f"Document {n}: " + "the cat sat on the green mat " * (n + 1) for n in range(16)]
CODE = [f'def café_{n}():\n\treturn "naïve résumé {n}"\n' for n in range(10)]
EOT = 50_256


class Case(NamedTuple):
    """A folder of input, and what comes of `prepare.py` with these settings."""

    write: Callable[[Path], Any]
    settings: tuple[str, ...]
    refused: str = ""  # in a sentence that holds this
    documents: list[str] | None = None  # or: these are made of it
    said: str = ""  # and this is printed
    learnt: str = ""  # and of each document only this bears loss


def lines(*records: dict[str, Any], name: str = "a.jsonl") -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))


def texts(name: str, content: list[str]) -> Callable[[Path], Any]:
    return lines(*({"text": text} for text in content), name=name)


def tokenizer(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    """A byte-level BPE, its file changed."""

    def write(folder: Path) -> None:
        path = folder.parent / "bpe" / "tokenizer.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        texts("a.jsonl", LONG)(folder)

    return write


def whitespace_bpe(folder: Path) -> None:
    made = Tokenizer(models.BPE({"[UNK]": 0, "<|endoftext|>": 1, "d": 2, "e": 3, "f": 4}, [], unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.BPEDecoder()
    made.add_special_tokens(["<|endoftext|>"])
    made.save(str(folder.parent / "bpe" / "tokenizer.json"))
    texts("a.jsonl", CODE)(folder)


def ids(dtype: str, **files: int) -> Callable[[Path], Any]:
    """Shards of GPT-2's ids, of which every 20th ends a document."""

    def write(folder: Path) -> None:
        for name, number in files.items():
            values = np.random.default_rng(number).integers(0, EOT, number)
            values[::20] = EOT
            values.astype(dtype).tofile(folder / f"{name}.bin")

    return write


def hidden_folder(folder: Path) -> None:
    for name in ("doc0.txt", "doc1.txt", "doc2.txt", ".ipynb_checkpoints/doc0-checkpoint.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"Text of {name}")


def dataset_clone(folder: Path) -> None:
    (folder / "data").mkdir()
    for split, n_rows in (("train", 4), ("test", 2)):
        rows = pa.table({"text": [f"{split} {n}" for n in range(n_rows)]})
        pq.write_table(rows, folder / "data" / f"{split}-00000-of-00001.parquet")
    splits = "".join(f"  - {{split: {split}, path: data/{split}-*.parquet}}\n" for split in ("train", "test"))
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{splits}---\n# A card\n")


def save_to_disk(folder: Path) -> None:
    datasets.Dataset.from_dict({"text": [f"Text {n}" for n in range(6)]}).save_to_disk(folder)


ANSWERS = [
    {"role": "user", "content": "Question?"},
    {"role": "assistant", "content": "bad", "weight": 0},
    {"role": "user", "content": "Again."},
    {"role": "assistant", "content": "good", "weight": 1},
]
ADD = [{"instruction": f"Add {n} and 2.", "output": str(n + 2)} for n in (1, 2)]
LOCAL = ("source=local", "sources.local.val_fraction=0.3")
NANOGPT = ("source=local", "format=nanogpt", "tokenizer=gpt2")
CASES = {
    "tokenizer_plain, long texts": Case(texts("a.jsonl", LONG), LOCAL, documents=LONG),
    "tokenizer_plain, code": Case(texts("a.jsonl", CODE), LOCAL, documents=CODE),
    "tokenizer_truncation": Case(
        tokenizer(
            lambda file: file.update(
                truncation={"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
            )
        ),
        LOCAL,
        documents=LONG,
    ),
    "tokenizer_whitespace_bpe": Case(whitespace_bpe, LOCAL, refused="byte-level BPE"),
    "nanogpt_uint32": Case(ids("<u4", train=300, val=100), NANOGPT, refused="uint32"),
    "nanogpt_train_val_test": Case(ids("<u2", train=200, val=100, test=100), NANOGPT, said="test.bin"),
    "hidden_folder": Case(
        hidden_folder, LOCAL, documents=[f"Text of doc{n}.txt" for n in range(3)], said="hidden folders (1)"
    ),
    "dataset_clone": Case(
        dataset_clone,
        LOCAL,
        documents=[f"train {n}" for n in range(4)],
        said=".parquet of the split test (1), README.md",
    ),
    "save_to_disk": Case(save_to_disk, LOCAL, documents=[f"Text {n}" for n in range(6)]),
    "two_text_columns": Case(
        lambda folder: (folder / "a.csv").write_text("text,label,text\nright,x,wrong\n"),
        LOCAL,
        refused="there are 2 columns 'text'",
    ),
    "openai_weight": Case(
        lines(*({"messages": [{"role": "system", "content": str(n)}, *ANSWERS]} for n in range(3))),
        ("source=smol_smoltalk",),
        learnt="good<|im_end|>",
    ),
    "alpaca_without_input, as it ships": Case(
        lines(*ADD), ("source=alpaca",), refused="sources.alpaca.fields.input=null"
    ),
    "alpaca_without_input, as the advice says": Case(
        lines(*ADD), ("source=alpaca", "sources.alpaca.fields.input=null"), learnt="3<|im_end|>4<|im_end|>"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_input_is_read_as_what_it_is_or_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, folder = CASES[name], tmp_path / "input"
    folder.mkdir()
    train_bpe([*LONG, *CODE], vocab_size=300, path=tmp_path / "bpe" / "tokenizer.json")
    case.write(folder)
    n_ids = len(json.loads((tmp_path / "bpe" / "tokenizer.json").read_text())["model"]["vocab"])
    ours = ("tokenizer=bpe_4096", "tokenizer.name=bpe", f"tokenizer.model_vocab_size={n_ids}")
    settings = [*case.settings, *(() if "tokenizer=gpt2" in case.settings else ours)]
    overrides = [*settings, "name=x", f"path={folder}", f"data_dir={tmp_path}", "workers=1"]
    config = compose_config("prepare", quote_text_settings(overrides))
    if case.refused:
        with pytest.raises(ValueError, match=r"\.$") as refused:
            prepare(config)
        assert case.refused in str(refused.value)
        assert "\n" not in str(refused.value)
        assert not list(tmp_path.glob("*/x/source.json"))
        return
    prepare(config)
    assert case.said in capsys.readouterr().out
    (made,) = tmp_path.glob("*/x")
    source = SourceShards(made)
    if case.documents is not None or case.learnt:
        used = load_tokenizer(tmp_path / "bpe")
        documents, learnt = [], []
        for stream in (source.train, source.val):
            start = 0
            for end in stream.document_ends.tolist():
                documents.append(used.decode(stream.read(start, end - 1).tolist()))
                if case.learnt:
                    masked = zip(stream.read(start, end).tolist(), stream.read_mask(start, end).tolist(), strict=True)
                    learnt.append(used.decode([i for i, bears_loss in masked if bears_loss]))
                start = end
        if case.documents is not None:
            assert sorted(documents) == sorted(case.documents)
        assert all(text in case.learnt and text for text in learnt)
    else:
        assert source.information["splits"]["train"]["tokens"] == 200  # test.bin is said, and is not among them


class Echo:
    """Answers a prompt with its ids, as a tokenizer trained here gives them."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = train_bpe([*LONG, *CODE], vocab_size=300, path=path)

    def answer(self, conversation: list[Message]) -> Any:
        yield str(len(self._tokenizer.encode_chat(conversation)[0]))

    def continue_text(self, prompt: str) -> Any:
        yield f" has {len(self._tokenizer.encode(prompt))} ids"


@pytest.mark.parametrize("chat", [True, False])
def test_a_prompt_that_is_not_utf8_is_one_sentence_and_the_session_goes_on(
    chat: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the caf\xe9\nthe cat\n"), encoding="utf-8"))
    ReplSession(Echo(tmp_path / "tokenizer.json"), chat=chat).hold("A session.")
    refused, answered = capsys.readouterr().out.splitlines()
    assert refused == "error: the prompt is not UTF-8: it contains the byte 0xe9."
    assert answered
    assert not answered.startswith("error")
