"""A session at the terminal, or of piped lines: each line is a prompt, or a command to the session itself."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from gpt_lightning.console import say
from gpt_lightning.tokenizer import Message

_HELP = """/reset            forget the conversation
/save <file>      add the conversation to a file of JSON lines, which prepare.py reads with
                  source=local path=<file> sources.local.fields.text=null +sources.local.fields.messages=messages
/set              how it writes now; /set temperature 0.5 changes it, and so on
/help             this; an empty line or /exit ends the session, Ctrl-C an answer; //x is a prompt that begins with /"""


class TextGenerator(Protocol):
    """Who writes: see `generate.ModelTextGenerator`."""

    settings: dict[str, Any]
    """How, by name."""

    def change(self, name: str, value: str) -> None:
        """Write otherwise from now on. Raises ValueError where that is no setting, or no value of it."""

    def answer(self, conversation: list[Message]) -> Iterator[str]:
        """What comes next in a conversation, piece by piece."""

    def continue_text(self, prompt: str) -> Iterator[str]:
        """What follows a text, piece by piece."""


class ReplSession:
    """Prompts, one after the other; a chat remembers them.

    Args:
        author: who answers.
        chat: whether prompts are turns of a conversation; else each is a text to go on with.
    """

    def __init__(self, author: TextGenerator, *, chat: bool) -> None:
        self._author, self._chat = author, chat
        self.conversation: list[Message] = []

    def hold(self, title: str) -> None:
        """Read lines until there are no more, or an empty one comes from a terminal."""
        at_terminal = sys.stdin.isatty()
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(
                errors="surrogateescape"
            )  # `write` says which byte is not UTF-8, and the session goes on
        if at_terminal:
            say(f"{title} /help says what else can be typed.")
        while (line := _ask(at_terminal)) is not None:
            if line.strip() in ("/exit", "/quit") or (at_terminal and not line.strip()):
                return
            if line.strip():
                self._take(line)

    def write(self, prompt: str) -> str:
        """Print what the author makes of a prompt, and return it; a chat grows by both turns.

        Raises:
            ValueError: the prompt alone is longer than the model can read, or is not UTF-8.
        """
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the prompt is not UTF-8: it holds the byte {ord(prompt[error.start]) - 0xDC00:#04x}."
            ) from error
        if self._chat:
            pieces = self._author.answer([*self.conversation, {"role": "user", "content": prompt}])
            self.conversation.append({"role": "user", "content": prompt})
        else:
            pieces = self._author.continue_text(prompt)
            say(prompt, end="")
        written = ""
        try:
            for piece in pieces:
                say(piece, end="")
                written += piece
        finally:
            if self._chat:
                self.conversation.append({"role": "assistant", "content": written})
        say()
        return written

    def _take(self, line: str) -> None:
        try:
            if line.startswith("/") and not line.startswith("//"):
                name, _, rest = line[1:].partition(" ")
                self._command(name.strip(), rest.strip())
            else:
                self.write(line[1:] if line.startswith("//") else line)
        except (ValueError, OSError) as refusal:
            say(f"error: {refusal}")
        except KeyboardInterrupt:
            say()

    def _command(self, name: str, rest: str) -> None:
        commands: dict[str, Callable[[str], None]] = {
            "reset": self._reset,
            "save": self._save,
            "set": self._set,
            "help": lambda _: say(_HELP),
        }
        if name not in commands:
            raise ValueError(
                f"there is no /{name}: {', '.join(f'/{known}' for known in commands)}, /exit. //… is a prompt."
            )
        commands[name](rest)

    def _reset(self, rest: str) -> None:
        self.conversation.clear()
        say("the conversation is forgotten.")

    def _save(self, rest: str) -> None:
        if not rest:
            raise ValueError("/save needs the name of a file.")
        if not self.conversation:
            raise ValueError("there is no conversation to save yet.")
        try:
            with Path(rest).expanduser().open("a", encoding="utf-8") as file:
                file.write(json.dumps({"messages": self.conversation}, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ValueError(f"{rest} cannot be written: {error.strerror}; the conversation is still here.") from error
        say(f"added to {rest}.")

    def _set(self, rest: str) -> None:
        if rest:
            name, _, value = rest.replace("=", " ").partition(" ")
            self._author.change(name, value.strip())
        say(", ".join(f"{name} {value}" for name, value in self._author.settings.items()))


def _ask(at_terminal: bool) -> str | None:
    """The next line; None: there is none."""
    try:
        return input("\n> " if at_terminal else "")
    except (EOFError, KeyboardInterrupt):
        return None
