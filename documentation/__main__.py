"""python -m documentation: build the website in site/. It loads nothing from other servers. Warnings are errors."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from documentation.settings_pages import write_pages
from gpt_lightning.console import say

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "site"
_SHIM = re.compile(r"https://[\w./-]*iframe-worker[\w./-]*")  # the theme would load it from a server
_OURS = "javascripts/frame_worker.js"
_LOADED = re.compile(
    r"""<(?:script|img|iframe)[^>]*\ssrc=["']?(https?:[^"'> ]+)|<link[^>]*\shref=["']?(https?:[^"'> ]+)"""
)


def main() -> int:
    """Write the generated pages, build the site and make it work offline. Returns 0, or the exit code after a warning."""
    write_pages()
    shutil.rmtree(SITE, ignore_errors=True)
    build = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    # with colours, zensical puts escape codes between all characters of a message
    environment = os.environ | {"NO_COLOR": "1"}
    done = subprocess.run(
        build, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    say(done.stdout.rstrip())
    if done.returncode:
        return done.returncode
    complaints = [line for line in done.stdout.splitlines() if line.startswith("griffe:")]  # warnings about docstrings
    complaints += stay_offline(SITE)
    for line in complaints:
        say(f"error: {line}", error=True)
    if not complaints:
        say("open site/index.html")
    return 1 if complaints else 0


def stay_offline(site: Path) -> list[str]:
    """Replace the theme's remote script by the local copy, and list everything else that a page loads from a server."""
    found = []
    for page in sorted(site.rglob("*.html")):
        up = "../" * (len(page.relative_to(site).parts) - 1)
        text = _SHIM.sub(f"{up}{_OURS}", page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")
        found += [f"{page.relative_to(site)} loads {a or b}" for a, b in _LOADED.findall(text)]
    return found


if __name__ == "__main__":
    sys.exit(main())
