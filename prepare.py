"""python prepare.py [source=…] [tokenizer=…]: documents to shards, once; what is complete is left alone."""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import launch
from data_modules.corpora.documents import Document, text_of
from data_modules.preparation import prepare_source
from data_modules.preparation.split import position_of
from gpt_lightning.tokenizer import Tokenizer, load_tokenizer, train_bpe


def prepare(config: Mapping[str, Any]) -> None:
    """Prepare each source of the config with its tokenizer, training the tokenizer first if it is one of ours.

    Raises:
        ValueError: a source or the tokenizer cannot be made; sources that were complete before stay as they are.
    """
    console = Console(highlight=False, soft_wrap=True)
    data_dir = Path(config["data_dir"])
    tokenizer = _tokenizer(config["tokenizer"], data_dir, console)
    for name, source in config["sources"].items():
        folder = data_dir / tokenizer.name / name
        if (folder / "source.json").is_file():
            information = json.loads((folder / "source.json").read_text())
            if information["tokenizer"]["fingerprint"] != tokenizer.fingerprint:
                raise ValueError(
                    f"{folder} was made with another tokenizer {tokenizer.name}: delete it and prepare it again."
                )
            console.print(f"{name}: already in {folder}, {_summary(information)}")
        else:
            information = _prepare(name, source, tokenizer, folder, console)
            console.print(f"{name}: prepared in {folder}, {_summary(information)}")


def _prepare(
    name: str, source: Mapping[str, Any], tokenizer: Tokenizer, folder: Path, console: Console
) -> dict[str, Any]:
    columns = SpinnerColumn(), TextColumn(name), TextColumn("{task.completed:,.0f} documents"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        corpus = _corpus(name, source)
        return prepare_source(
            partial(launch.instantiate, corpus),
            name=name,
            tokenizer=tokenizer,
            folder=folder,
            val_fraction=source["val_fraction"],
            origin=corpus,
            licence=source["licence"],
            progress=partial(progress.advance, progress.add_task(name)),
        )


def _tokenizer(config: Mapping[str, Any], data_dir: Path, console: Console) -> Tokenizer:
    if "train_on" not in config:
        return load_tokenizer(config["name"])
    path = data_dir / config["name"] / "tokenizer.json"
    if not path.is_file():
        with console.status(f"training the tokenizer {config['name']} on {', '.join(config['train_on'])}"):
            train_bpe(_training_texts(config["train_on"]), vocab_size=config["model_vocab_size"], path=path)
        console.print(f"{config['name']}: trained, {path}")
    tokenizer = load_tokenizer(path)
    if tokenizer.vocab_size != config["model_vocab_size"]:
        raise ValueError(
            f"{path} has {tokenizer.vocab_size} ids, not tokenizer.model_vocab_size={config['model_vocab_size']}: "
            "choose another tokenizer.name, or delete its folder and prepare again."
        )
    return tokenizer


def _training_texts(names: list[str]) -> Iterator[str]:
    """The training documents of these sources: a tokenizer must not have seen the validation documents either."""
    for name in names:
        source = launch.read_choice("source", name)
        documents: Iterator[Document] = launch.instantiate(_corpus(name, source))
        yield from (text for text in map(text_of, documents) if position_of(text) >= source["val_fraction"])


def _corpus(name: str, source: Mapping[str, Any]) -> Mapping[str, Any]:
    if "corpus" not in source:
        raise ValueError(
            f"source {name} lies on the Hugging Face hub ({source['hub']['id']}), which this version cannot read yet: "
            "python prepare.py without source= prepares the embedded corpora."
        )
    corpus: Mapping[str, Any] = source["corpus"]
    return corpus


def _summary(information: Mapping[str, Any]) -> str:
    train, val = information["splits"]["train"], information["splits"]["val"]
    n_bytes = train["bytes"] + val["bytes"]
    return (
        f"{train['documents'] + val['documents']:,} documents, {n_bytes / 1e6:.1f} MB, {train['tokens']:,} tokens to train "
        f"on and {val['tokens']:,} to validate with, {n_bytes / (train['tokens'] + val['tokens']):.2f} bytes a token"
    )


@hydra.main(version_base=None, config_path="conf", config_name="prepare")
def main(config: DictConfig) -> None:
    launch.run(prepare, config)


if __name__ == "__main__":
    launch.start(main, "prepare")
