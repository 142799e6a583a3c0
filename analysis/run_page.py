"""Write one run as a standalone HTML page, and the samples as Markdown."""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from analysis import standalone_html
from analysis.comparison.read_runs import read_run
from analysis.comparison.run import Run
from analysis.comparison.run_settings import leaves_results_unchanged, setting_text, shorten_setting_names
from analysis.run_reader import LoggedRun
from gpt_lightning.console import escape_control_characters

_LONGEST = 120  # characters of a setting
PAGE_CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2330; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; } th, td { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #1b2a5c; } td { border-bottom: 1px solid #e3e6ee; } .number { text-align: right; }
td { overflow-wrap: anywhere; } td:first-child { min-width: 7em; }
img { max-width: 100%; } pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f5f6fa; padding: .6rem
.9rem; } .prompt { color: #1b2a5c; font-weight: 600; } .note { color: #5b6478; }
"""


def write_run_page(run: LoggedRun, pictures: Mapping[str, Path], path: Path) -> None:
    """Write a run as one HTML file with embedded plots. The page loads nothing and runs no script.

    Args:
        run: the run.
        pictures: heading -> PNG file.
        path: path of the HTML file.
    """
    sections = [
        ("Settings", _settings(run)),
        ("Validation", _validation(run)),
        *((heading, [image_html(heading, file)]) for heading, file in pictures.items()),
        ("Samples", _samples(run)),
        ("Events", _events(run)),
        ("Environment", _environment(run)),
    ]
    body = "\n".join(f"<h2>{escape(heading)}</h2>\n" + "\n".join(parts) for heading, parts in sections)
    standalone_html.write_html_page(
        path,
        title=run.title,
        body=f"<h1>{escape(run.title)}</h1>\n<p>{escape(progress_text(run))}</p>\n{body}",
        style=PAGE_CSS,
    )


def progress_text(run: LoggedRun) -> str:
    """The state of a run as text, such as done, running or unfinished."""
    read = _as_compared(run)
    return f"{read.state}, {read.note}" if read.note else read.state


def _as_compared(run: LoggedRun) -> Run:
    """The run as a comparison reads it."""
    return read_run(run.path, run.path.name, run.metrics)


def write_samples_markdown(run: LoggedRun, path: Path) -> None:
    """Write samples.md: each prompt, and the model's responses over time.

    Args:
        run: the run.
        path: path of the Markdown file.
    """
    lines = [f"# Samples of {escape_control_characters(run.path.name)}"]
    for number, (prompt, responses) in enumerate(run.responses.items(), start=1):
        lines += ["", f"## Prompt {number}", "", *_verbatim(prompt)]
        for step, response in responses:
            lines += ["", f"Step {step:,}:", "", *_verbatim(response)]
    if not run.responses:
        lines += ["", "No samples yet."]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _verbatim(text: str) -> list[str]:
    """Markdown lines that show a text literally, with control characters escaped."""
    return [f"    {escape_control_characters(line)}" for line in text.splitlines() or [""]]


def _settings(run: LoggedRun) -> Iterator[str]:
    """HTML of the settings: command, git revision, one row per group, and all of config.yaml in a fold-out."""
    git = run.environment.get("git") or {}
    revision = git.get("revision") or "not recorded: git was missing, or the code is not a clone"
    rows = [
        ("command", str(run.environment.get("command") or "not recorded")),
        ("revision", f"{revision}{', with uncommitted changes' if git.get('changed') else ''}"),
    ]
    groups: dict[str, list[str]] = {}
    for key, value in _as_compared(run).settings.items():
        group, _, name = key.partition(".")
        if not leaves_results_unchanged(key):
            said = f"{name or group}={shorten_setting_names(setting_text(value), _LONGEST)}"
            groups.setdefault(group if name else "training", []).append(said)
    rows += [(group, ", ".join(said)) for group, said in groups.items()]
    yield table_html(("", ""), rows)
    yield f"<details><summary>config.yaml</summary><pre>{escape(run.settings)}</pre></details>"


def _validation(run: LoggedRun) -> Iterator[str]:
    rows = [
        (
            of.source,
            f"{of.loss:.4f}",
            f"{of.perplexity:.1f}",
            f"{of.unigram_perplexity:.0f}" if of.unigram_perplexity else "",
            f"{of.bits_per_byte:.3f}",
        )
        for of in run.validation
    ]
    head = ("source", "loss, nats per token", "perplexity", "unigram perplexity", "bits per byte")
    yield table_html(head, rows) if rows else "<p>Not validated yet.</p>"


def image_html(heading: str, file: Path) -> str:
    """HTML of an embedded PNG file.

    Args:
        heading: alternative text.
        file: the PNG file.
    """
    return f'<img alt="{escape(heading)}" src="data:image/png;base64,{b64encode(file.read_bytes()).decode()}">'


def _samples(run: LoggedRun) -> Iterator[str]:
    """HTML of the samples: the newest of each prompt visible, the earlier ones in a fold-out."""
    for prompt, responses in run.responses.items():
        *earlier, (step, response) = responses
        yield f'<p class="prompt">{escape(_in_one_line(prompt))}</p>'
        yield f'<p class="note">step {step:,}</p><pre>{escape(response)}</pre>'
        if earlier:
            of_steps = "".join(
                f'<p class="note">step {step:,}</p><pre>{escape(text)}</pre>' for step, text in reversed(earlier)
            )
            yield f"<details><summary>{len(earlier)} earlier</summary>{of_steps}</details>"
    if not run.responses:
        yield "<p>No samples.</p>"


def _events(run: LoggedRun) -> Iterator[str]:
    events = [(step, "interrupted, and resumed from its checkpoint") for step in run.resumed_steps]
    events += [(step, f"{key} changed from {then} to {now}") for step, key, (then, now) in run.changes]
    events += [(row["step"], f"{row['fault']}: {row.get('why', '')}".rstrip(": ")) for row in run.faults]
    rows = [(f"{step:,}", what) for step, what in sorted(events)]
    yield (
        table_html(("after step", "event"), rows)
        if rows
        else "<p>None: the run was not interrupted, and its settings did not change.</p>"
    )
    for name, lines in run.unreadable.items():
        yield f"<p>{lines:,} line{'s' * (lines > 1)} of {escape(name)} cannot be read, and are missing here.</p>"


def _environment(run: LoggedRun) -> Iterator[str]:
    environment = run.environment
    rows = [("device", environment.get("device")), *environment.get("versions", {}).items()]
    yield table_html(("", ""), [(name, str(value)) for name, value in rows if value])
    tokens = [
        (name, f"{source['train_tokens']:,}", source["fingerprint"][:12])
        for name, source in environment["data"].items()
    ]
    yield table_html(("source", "training tokens", "fingerprint"), tokens)


def table_html(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table. Cells that start with a number are right-aligned.

    Args:
        head: headings of the columns.
        rows: texts of the cells.
    """

    def cell(text: str) -> str:
        number = ' class="number"' if re.match(r"[\d,]+(\.\d+)?( |%|$)", text) else ""
        return f"<td{number}>{escape(text)}</td>"

    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>\n" for row in rows)
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table>"


def _in_one_line(text: str) -> str:
    return " ".join(text.split()) or json.dumps(text)
