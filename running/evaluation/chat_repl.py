"""Interactive session at a terminal or with piped input. Each line is a prompt or a command of the session."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from gpt_lightning.console import say
from gpt_lightning.tokenizer import Message

_HELP = """/reset            clear the conversation
/save <file>      append the conversation to a JSON Lines file, which prepare.py reads with
                  source=local path=<file> sources.local.fields.text=null +sources.local.fields.messages=messages
/set              show the generation settings; /set temperature 0.5 changes one of them
/help             show this text
An empty line or /exit ends the session. Ctrl-C stops an answer. A prompt that begins with / is typed with //."""


class TextGenerator(Protocol):
    """What generates the text; see `model_text_generator.ModelTextGenerator`."""

    settings: dict[str, Any]
    """Generation settings by name."""

    def change(self, name: str, value: str) -> None:
        """Change a generation setting. Raises ValueError if there is no such setting or the value is invalid.

        Args:
            name: name of the setting.
            value: the value as JSON; none stands for null.
        """

    def answer(self, conversation: list[Message]) -> Iterator[str]:
        """Yield the next turn of a conversation, piece by piece."""

    def continue_text(self, prompt: str) -> Iterator[str]:
        """Yield the continuation of a text, piece by piece."""


class ReplSession:
    """A sequence of prompts. In a chat, each prompt continues the conversation.

    Args:
        author: generates the answers.
        chat: whether prompts are turns of a conversation; otherwise each is a text to continue.
    """

    def __init__(self, author: TextGenerator, *, chat: bool) -> None:
        self._author, self._chat = author, chat
        self.conversation: list[Message] = []

    def hold(self, title: str) -> None:
        """Read lines until the input ends, or until an empty line at a terminal.

        Args:
            title: printed first at a terminal.
        """
        at_terminal = sys.stdin.isatty()
        if isinstance(sys.stdin, io.TextIOWrapper):
            # `write` names the byte that is not UTF-8, and the session continues
            sys.stdin.reconfigure(errors="surrogateescape")
        if at_terminal:
            say(f"{title} /help lists the commands.")
        while (line := _ask(at_terminal)) is not None:
            if line.strip() in ("/exit", "/quit") or (at_terminal and not line.strip()):
                return
            if line.strip():
                self._take(line)

    def write(self, prompt: str) -> str:
        """Print the generated text for a prompt. In a chat, append both turns to the conversation.

        Args:
            prompt: a turn of the conversation, or the text to continue.

        Returns:
            The generated text.

        Raises:
            ValueError: the prompt alone is longer than the model's context, or is not UTF-8.
        """
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the prompt is not UTF-8: it contains the byte {ord(prompt[error.start]) - 0xDC00:#04x}."
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
                f"there is no command /{name}: use {', '.join(f'/{known}' for known in commands)} or /exit. A prompt "
                "that begins with / is typed with //."
            )
        commands[name](rest)

    def _reset(self, rest: str) -> None:
        self.conversation.clear()
        say("the conversation was cleared.")

    def _save(self, rest: str) -> None:
        if not rest:
            raise ValueError("/save needs a file name.")
        if not self.conversation:
            raise ValueError("there is no conversation to save yet.")
        try:
            with Path(rest).expanduser().open("a", encoding="utf-8") as file:
                file.write(json.dumps({"messages": self.conversation}, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ValueError(
                f"{rest} cannot be written: {error.strerror}; the conversation is kept in memory."
            ) from error
        say(f"appended to {rest}.")

    def _set(self, rest: str) -> None:
        if rest:
            name, _, value = rest.replace("=", " ").partition(" ")
            self._author.change(name, value.strip())
        say(", ".join(f"{name} {value}" for name, value in self._author.settings.items()))


def _ask(at_terminal: bool) -> str | None:
    """The next line; None at the end of the input."""
    try:
        return input("\n> " if at_terminal else "")
    except (EOFError, KeyboardInterrupt):
        return None
