"""One run as a page that stands alone, and its samples as a text."""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from analysis import standalone_page
from analysis.run_record import RunRecord

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2330; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; } th, td { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #1b2a5c; } td { border-bottom: 1px solid #e3e6ee; } .number { text-align: right; }
img { max-width: 100%; } pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f5f6fa; padding: .6rem .9rem; }
.prompt { color: #1b2a5c; font-weight: 600; } .note { color: #5b6478; }
"""


def write_page(run: RunRecord, pictures: Mapping[str, Path], path: Path) -> None:
    """A run in one HTML file, pictures included: nothing is fetched, and no script runs.

    Args:
        run: what it tells of.
        pictures: PNG files, each under its heading.
        path: where to write it.
    """
    sections = [
        ("Validation", _validation(run)),
        *((heading, [_picture(heading, file)]) for heading, file in pictures.items()),
        ("Samples", _samples(run)),
        ("What happened under way", _events(run)),
        ("Made with", _environment(run)),
        ("Settings", [f"<details><summary>config.yaml</summary><pre>{escape(run.settings)}</pre></details>"]),
    ]
    body = "\n".join(f"<h2>{escape(heading)}</h2>\n" + "\n".join(parts) for heading, parts in sections)
    standalone_page.write_page(
        path, title=run.curves.title, body=f"<h1>{escape(run.curves.title)}</h1>\n{body}", style=_STYLE
    )


def write_samples(run: RunRecord, path: Path) -> None:
    """samples.md: each prompt, and what the model made of it, through time."""
    lines = [f"# Samples of {run.path.name}"]
    for prompt, responses in run.responses.items():
        lines += ["", f"## {_in_one_line(prompt)}"]
        for step, response in responses:
            lines += ["", f"Step {step:,}:", "", *(f"    {line}" for line in response.split("\n"))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _validation(run: RunRecord) -> Iterator[str]:
    if run.last("val/loss/mean") is None:
        yield "<p>It has not been validated yet.</p>"
        return
    rows = [
        (
            source,
            f"{run.last(f'val/loss/{source}'):.4f}",
            f"{run.last(f'val/perplexity/{source}'):.1f}",
            f"{run.unigram_perplexity(source):.0f}" if source != "mean" else "",
            f"{run.last(f'val/bits_per_byte/{source}'):.3f}",
        )
        for source in [*run.sources, "mean"]
        if run.last(f"val/loss/{source}") is not None
    ]
    yield table(("source", "loss, nats a token", "perplexity", "of a unigram model", "bits per byte"), rows)


def _picture(heading: str, file: Path) -> str:
    return f'<img alt="{escape(heading)}" src="data:image/png;base64,{b64encode(file.read_bytes()).decode()}">'


def _samples(run: RunRecord) -> Iterator[str]:
    """The newest of each prompt in the open, the others behind it."""
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
        yield "<p>There are none.</p>"


def _events(run: RunRecord) -> Iterator[str]:
    rows = [(f"{step:,}", "interrupted, and gone on from its checkpoint") for step in run.resumed_steps]
    rows += [
        (f"{row['after_step']:,}", f"{key} was {then}, and is {now} from here on")
        for row in run.changes
        for key, (then, now) in row["changes"].items()
    ]
    rows += [(f"{row['step']:,}", f"{row['fault']}: {row.get('why', '')}".rstrip(": ")) for row in run.faults]
    yield table(("after step", "what"), rows) if rows else "<p>Nothing: it ran in one go, with the same settings.</p>"


def _environment(run: RunRecord) -> Iterator[str]:
    environment = run.environment
    rows = [("device", environment.get("device")), *environment.get("versions", {}).items()]
    rows += [("revision", (environment.get("git") or {}).get("revision"))]
    yield table(("", ""), [(name, str(value)) for name, value in rows if value])
    tokens = [
        (name, f"{source['train_tokens']:,}", source["fingerprint"][:12])
        for name, source in environment["data"].items()
    ]
    yield table(("source", "training tokens", "fingerprint"), tokens)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; numbers are set to the right."""

    def cell(text: str) -> str:
        number = ' class="number"' if re.fullmatch(r"[\d.,]+", text) else ""
        return f"<td{number}>{escape(text)}</td>"

    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>\n" for row in rows)
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table>"


def _in_one_line(text: str) -> str:
    return " ".join(text.split()) or json.dumps(text)
