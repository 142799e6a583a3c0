"""The command that lets a model write: one prompt, a session, a chat, and what it refuses."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gpt_lightning import load_model
from gpt_lightning.console import escape_control_characters
from gpt_lightning.convert import to_native
from gpt_lightning.generation import Sampling
from gpt_lightning.generation import generate as generate_ids
from gpt_lightning.tokenizer import load_tokenizer
from running.commands import generate as command
from running.config.command_line_check import check_command_line
from running.config.compose import compose_config
from running.config.quote_for_hydra import quote_text_settings


@pytest.fixture
def run(trained: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy, which a test may change."""
    run = trained("max_steps=4", "val_every=4", "model.max_seq_len=64")
    return shutil.copytree(run, tmp_path / "runs" / "run")


def settings(run: Path, *more: str) -> dict[str, Any]:
    return compose_config("generate", [f"run={run}", "max_new_tokens=8", *more])


def typed(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Iterator[str] = iter(lines)

    def ask(prompt: str) -> str:
        try:
            return next(answers)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", ask)


def test_writing(
    run: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(tiny_data / "bpe_512")
    model = load_model(run)

    def expected(prompt: list[int]) -> str:
        sampling, stop = Sampling(temperature=0.8, top_p=0.95), list(tokenizer.special_ids.values())
        (ids,) = generate_ids(model, [prompt], 8, sampling=sampling, stop_ids=stop, vocab_size=tokenizer.vocab_size)
        return tokenizer.decode(ids)

    def shown(text: str) -> str:
        return f"class {escape_control_characters(text)}\n"

    text = expected([tokenizer.eot_id, *tokenizer.encode("class ")])
    assert command.generate(settings(run, "prompt='class '")) == text
    assert capsys.readouterr().out == shown(text)
    to_native(model, run / "exported", tokenizer)  # a folder knows its tokenizer, as a run and its checkpoints do
    for place in ("exported", "checkpoints/step_00000004.pt"):
        assert command.generate(settings(run / place, "prompt='class '")) == text
    capsys.readouterr()

    typed(["class "], monkeypatch)
    command.generate(settings(run))
    assert shown(text) in capsys.readouterr().out

    chat = expected([tokenizer.eot_id, *tokenizer.encode_chat_prompt([{"role": "user", "content": "Why?"}])])
    assert command.generate(settings(run, "prompt=Why?", "mode=chat")) == chat
    capsys.readouterr()
    typed(
        ["Why?", "And then?", "And " * 9, "x" * 900, "Well?"], monkeypatch
    )  # longer than the context, in turns and at once
    command.generate(settings(run, "mode=chat"))
    said = capsys.readouterr().out
    assert said.split("\n")[0] == escape_control_characters(chat).split("\n")[0]
    assert said.count("error: the prompt has ") == 1


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
@example("Once upon a time,")
@example('It\'s f(x) = [1, {2: "3"}] # ${run} \\\\"')
@example("a\\\\")
def test_a_prompt_is_taken_as_it_is_typed(text: str) -> None:
    (argument,) = quote_text_settings([f"prompt={text}"])
    assert compose_config("generate", [argument])["prompt"] == text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("mode=song", "mode is 'song': it must be text or chat"),
        ("max_new_tokens=0", "max_new_tokens is 0"),
        ("top_p=2", "top_p is 2"),
        (
            "stop=['<|stop|>']",
            r"stop: '<\|stop\|>' is not a single token of tokenizer bpe_512; its special tokens are <\|endoftext\|>",
        ),
        ("stop=the", "stop is 'the': it must be a list of tokens"),
        ("run=nowhere", "nowhere does not exist"),
        ("run=null", "run is None: it must be a path"),
        ("run=README.md", r"README\.md cannot be read: it must be a torch\.save file"),
        ("run={}/checkpoints", r"is the checkpoint folder of a run: use .*/run, or one of its step_….pt"),
        ("run=conf", "conf is not a model: it must be a run directory with a checkpoints folder"),
        ("temperature=null", "temperature is None: it must be a number"),
        ("top_k=true", "top_k is True: it must be a whole number"),
        ("tokenizer.name=gpt2", "has a vocabulary of 512, smaller than the 50257 tokens of tokenizer gpt2"),
        (f"prompt={'x' * 500}", r"the prompt has \d+ tokens: it must have at most 64, the model's max_seq_len"),
    ],
)
def test_refusals(run: Path, setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command.generate(settings(run, "prompt=x", setting.replace("{}", str(run))))


def test_a_tokenizer_that_was_made_anew_is_noticed(run: Path) -> None:
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(environment | {"tokenizer": "0" * 64}))
    with pytest.raises(ValueError, match="was trained with a tokenizer bpe_512 that differs from "):
        command.generate(settings(run, "prompt=x"))


@pytest.mark.parametrize("content", ["{", "tokenizer: 3"])
def test_a_config_that_is_not_of_a_run_is_named(run: Path, content: str) -> None:
    (run / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"its config\.yaml and environment\.json are not those of a run"):
        command.generate(settings(run, "prompt=x"))


def test_the_folder_of_a_sweeps_run_can_be_typed(run: Path) -> None:
    folder = run.rename(run.with_name("optimizer.lr=1e-3,model=micro"))
    (argument,) = quote_text_settings([f"run={folder}"])
    check_command_line("generate", [argument, "prompt=x"])
    assert compose_config("generate", [argument])["run"] == str(folder)
