"""Write an HTML page as a single file with charts, data and scripts.

The page's security policy forbids the browser to load anything else.
"""

import json
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gpt_lightning.console import escape_control_characters

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def write_html_page(
    path: Path,
    *,
    title: str,
    body: str,
    style: str,
    script: str | None = None,
    data: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write a page. The script finds Plotly as `Plotly`, and each entry of `data` as JSON in the element with the
    entry's name as id.

    Control characters in the texts are escaped.

    Args:
        path: the file, whose folder is created.
        title: plain text.
        body: HTML, with all foreign text escaped.
        style: CSS.
        script: JavaScript, run after everything is loaded; None: the page has no script.
        data: numbers, strings, lists and dicts; values that are not finite become null.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(escape_control_characters(title))}</title><style>{style}</style></head><body>",
        escape_control_characters(body),
        *(
            f'<script type="application/json" id="{escape(name)}">{script_safe_json(value)}</script>'
            for name, value in data.items()
        ),
        *([] if script is None else [f"<script>{_plotly()}</script>", f"<script>{script}</script>"]),
        "</body></html>\n",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    # a lone surrogate, as in an invalid file name
    temporary.write_bytes("\n".join(parts).encode("utf-8", errors="replace"))
    temporary.replace(path)


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # slow to import, and not needed by a page without a script

    return str(get_plotlyjs())


def script_safe_json(value: Any) -> str:
    """JSON whose strings cannot end the script element that contains the JSON.

    Args:
        value: numbers, strings, lists and dicts.
    """
    text = json.dumps(_fit(value), separators=(",", ":"), allow_nan=False)  # ASCII: U+2028 is escaped too
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _fit(value: Any) -> Any:
    """The value with finite numbers only, and strings without control characters."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return escape_control_characters(value)
    if isinstance(value, Mapping):
        return {
            escape_control_characters(key) if isinstance(key, str) else key: _fit(entry) for key, entry in value.items()
        }
    return [_fit(entry) for entry in value] if isinstance(value, (list, tuple)) else value
