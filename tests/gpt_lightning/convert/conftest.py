"""The other library of these tests."""

from typing import Any

import pytest


@pytest.fixture(scope="session")
def transformers() -> Any:
    """Imported late: it takes seconds, and most of the suite does without."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers
