"""python -m documentation: build the site into site/. A warning is an error."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from documentation.settings_pages import write_pages

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Write the generated pages, then build; the exit code is the builder's."""
    write_pages()
    shutil.rmtree(ROOT / "site", ignore_errors=True)
    build = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    # its messages quote whole lines, colouring each character of them
    code = subprocess.run(build, cwd=ROOT, env=os.environ | {"NO_COLOR": "1"}, check=False).returncode
    if code == 0:
        print(f"open {(ROOT / 'site' / 'index.html').relative_to(ROOT)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
