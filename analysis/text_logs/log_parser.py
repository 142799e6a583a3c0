"""Parse training logs of RangeFlow-GPT and ours. Several files are merged into one record of steps and samples.

    [2025-11-18 07:15:06] Step    610 | Loss: 6.2691 | LR: 2.09e-04 | Tokens/s: 8,362 | GPU: 14.8GB | Time: 158s
    [2026-11-22 02:00:00] step    610 | loss 3.4512 (3.4701) | lr 5.79e-04 | 128,514 tokens/s, MFU 41.2% | 3 min left
    [2025-11-18 07:38:15] 📝 SAMPLES                        [2026-11-22 02:00:00] ── samples at step 610 ──────
    [2025-11-18 07:38:16] The future of AI is → The future of AI is also
    not only …                  (a response ends at the next timestamp, or at the rule of = or ─ that ends the block)
    [2025-11-18 07:38:20] 💾 Checkpoint saved: checkpoints/checkpoint_step_700.pt
    [2026-11-22 02:00:00] saved checkpoints/…
    [2025-11-18 07:38:20] 🗑️  Removed old checkpoint: checkpoint_step_428.pt
    ⚠️  Interrupted! Saving...                              [2026-11-22 02:00:00] stopped by SIGTERM after step 612: …

Lines about checkpoints and interruptions, and samples without a step, belong to the last step before them in the same
file. "continuing after step 610, from …" (earlier versions: "going on after …") means an interruption at the last step
logged up to that step. If several lines have the same step, the one with the latest timestamp counts; the same holds
for blocks of samples. Lines that cannot be parsed are counted and skipped: half a line after a full disk, two writers
in one line, bytes that are not text.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.text_logs.line_reader import MAX_LINE_BYTES, decode_text, read_lines, split_lines
from analysis.text_logs.step_table import VALUES, StepTable

_TIME = r"\d{4}-[01]\d-[0-3]\d [0-2]\d:[0-5]\d:[0-6]\d"
_WHOLE = r"\d[\d,]{0,14}|nan|inf"
_NUMBER = r"[+-]?(?:\d[\d,]*(?:\.\d*)?(?:e[+-]?\d{1,3})?|nan|inf)"
# on bytes, because most lines need not be decoded; the groups are time, step and StepTable's values, as many as there
# are
_STEP = re.compile(
    rf"\[({_TIME})\] Step +(\d{{1,15}}) \| Loss: +({_NUMBER}) \| LR: ({_NUMBER}) \| Tokens/s: +({_WHOLE}) \| "
    rf"GPU: ({_NUMBER})GB \| Time: (\d{{1,15}})s\s*".encode()
)
_OUR_STEP = re.compile(
    rf"\[({_TIME})\] step +(\d{{1,15}}) \| loss +({_NUMBER})(?: \({_NUMBER}\))? \| lr ({_NUMBER})"
    rf"(?: \| ({_NUMBER}) tokens/s(?:, MFU \S+%)?)? \| [\w, ]+ left\s*".encode()
)
_TIMED = re.compile(rf"\[({_TIME})\] ?(.*)", re.DOTALL)
# other events of a run; up to eight characters may stand for a pictograph in a wrong encoding
_EVENT = re.compile(
    r"(?P<rule>[=─])(?P=rule){19,}\s*"
    r"|(?P<samples>\S{1,8} +SAMPLES\s*|─+ samples at step (?P<step>\d[\d,]{0,14}) ─+\s*)"
    r"|(?:\S{1,8} +Checkpoint saved:|saved) (?P<saved>\S.*\.pt)\s*"
    r"|\S{1,8} +Removed old checkpoint: (?P<removed>\S.*\.pt)\s*"
    r"|(?P<interrupted>\S{1,8} +Interrupted!.*|stopped (?:by \S+ )?after step \d.*)"
    r"|(?:continuing|going on) after step (?P<gone_on>\d{1,15}), from .*"
)
# two writers in one line, or a part of a step's line
_TORN = re.compile(rf"\[{_TIME}\]|\| (?:LR:|lr) \d|[Ss]tep +\d+ \|")
# the beginning of an event or a step, without its end
_BEGINNING = re.compile(r"[Ss](?:t(?:ep?)?)?|[Ss]tep *\d* *|saved(?: .*)?|[💾🗑📝].*|─+ .*")
_INDENT = "    "  # of the second and later lines of a sample in our logs


@dataclass
class TextLog:
    """The merged content of all files."""

    steps: StepTable = field(default_factory=StepTable)
    samples: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Step -> block of samples, as in llm_training_samples.json."""
    n_files: int = 0
    n_lines: int = 0
    n_not_understood: int = 0
    first_not_understood: str = ""
    """Place and beginning of the first line that was not understood; empty if there is none."""


def read_logs(paths: Sequence[Path]) -> TextLog:
    """Read and merge logs.

    Args:
        paths: the files. Of lines with the same step and timestamp, the line in the last file counts.
    """
    log = TextLog()
    gone_on: set[tuple[int, bytes]] = set()
    for path in paths:
        reader = _FileReader(log, gone_on)
        number = 0
        for number, line in enumerate(read_lines(path), 1):
            if reader.take_step(line) or (len(line) <= MAX_LINE_BYTES and reader.take_other(line)):
                continue
            log.n_not_understood += 1
            if not log.first_not_understood:
                log.first_not_understood = f"line {number:,} of {path}, {decode_text(line[:60])!r}"
        reader.end_samples()
        log.n_files += 1
        log.n_lines += number
    log.steps.set_gone_on(gone_on)
    return log


class _FileReader:
    """State while one file is read."""

    def __init__(self, log: TextLog, gone_on: set[tuple[int, bytes]]) -> None:
        self._log = log
        self._gone_on = gone_on
        self._step: int | None = None  # last step so far
        self._entry: int | None = None  # entry of that step, unless a later line has replaced it
        self._block: dict[str, Any] | None = None  # current block of samples
        self._rule = ""  # character of the rule that ends the block
        self._sample: list[str] = []  # lines of the current sample
        self._sample_time = ""
        self._length = 0  # characters added to the first line of the sample
        self._noted = False  # whether the previous line may continue

    def take_step(self, line: bytes) -> bool:
        """Parse a step's line; return whether it is one."""
        match = _STEP.fullmatch(line) or _OUR_STEP.fullmatch(line)
        if match is None:
            return False
        time, step, *texts = match.groups(b"nan")
        self._step = int(step)
        values = [float(text.replace(b",", b"")) for text in texts]
        self._entry = self._log.steps.add(self._step, time, values + [math.nan] * (len(VALUES) - len(values)))
        if self._block:
            self.end_samples()
        self._noted = False
        return True

    def take_other(self, line: bytes) -> bool:
        """Parse any other line of a log, or the remains of damaged lines; return whether it was understood."""
        pieces = split_lines(line)
        return bool(pieces) and all([self.take_step(piece) or self._take_text(decode_text(piece)) for piece in pieces])

    def _take_text(self, text: str) -> bool:
        if self._rule == "─" and self._sample and text.startswith(_INDENT):
            return self._continue(text.removeprefix(_INDENT))
        if timed := _TIMED.fullmatch(text):
            return self._take_timed(*timed.groups())
        event = _EVENT.fullmatch(text)
        if event and event["interrupted"]:
            self._interrupt()
            return True
        if event and event["rule"] and self._rule in ("", event["rule"]):
            self.end_samples()
            return True
        if _TORN.search(text):
            return False
        if self._sample:
            return self._continue(text)
        return not text.strip() or (self._noted and text.startswith("  "))

    def _take_timed(self, time: str, text: str) -> bool:
        event = _EVENT.fullmatch(text)
        if event is None and (_TORN.search(text) or _BEGINNING.fullmatch(text)):
            return False
        self._end_sample()
        kind = event.lastgroup if event else None
        self._noted = kind is None
        if event is None:
            if self._block:
                self._sample, self._sample_time, self._length = [text], time, 0
        elif kind == "samples":
            return self._begin_samples(time, ours=event["step"])
        elif kind == "rule":
            self.end_samples()
        elif kind == "gone_on":
            self._gone_on.add((int(event["gone_on"]), time.encode()))
        elif kind == "interrupted":
            self._interrupt()
        elif self._entry is not None:
            tell = self._log.steps.set_saved if kind == "saved" else self._log.steps.set_removed
            tell(self._entry, event["saved"] or event["removed"])
        return True

    def _interrupt(self) -> None:
        if self._entry is not None:
            self._log.steps.set_interrupted(self._entry)

    def _begin_samples(self, time: str, *, ours: str | None) -> bool:
        self.end_samples()
        step = self._step if ours is None else int(ours.replace(",", ""))
        if step is None:
            return False
        self._block = {"step": step, "timestamp": time, "samples": []}
        self._rule = "=" if ours is None else "─"
        return True

    def _continue(self, text: str) -> bool:
        """Add a line to the current sample. Its length is limited, because anything may follow a torn block."""
        self._length += len(text) + 1
        if self._length > MAX_LINE_BYTES:
            return False
        self._sample.append(text)
        return True

    def _end_sample(self) -> None:
        prompt, arrow, response = "\n".join(self._sample).partition("→")
        if self._block and arrow:
            response = response.removeprefix(" ").rstrip("\n")
            sample = {"prompt": prompt.removesuffix(" "), "response": response, "timestamp": self._sample_time}
            self._block["samples"].append(sample)
        self._sample = []

    def end_samples(self) -> None:
        """End the current block of samples."""
        self._end_sample()
        if self._block and self._block["samples"]:
            known = self._log.samples.get(self._block["step"])
            if known is None or known["timestamp"] <= self._block["timestamp"]:
                self._log.samples[self._block["step"]] = self._block
        self._block, self._rule = None, ""
