"""Check YAML files for depth and size before they are read, because they may come from a stranger."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from yaml import YAMLError

from gpt_lightning.bounded_yaml import check_yaml_bounds

CONF = Path(__file__).resolve().parents[2] / "conf"


class _BoundedFiles(FileConfigSource):
    """Reader of config folders that checks files outside conf/ first."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path, self._normalize_file_name(config_path))
        if path.is_file() and not path.is_relative_to(CONF):
            check_yaml_file(path)
        return super().load_config(config_path)


@contextmanager
def bounded_files() -> Iterator[None]:
    """Inside the context, Hydra reads files through `_BoundedFiles`. (Launchers pickle the registry afterwards.)"""
    Plugins.instance()  # registers Hydra's own reader
    types = SourcesRegistry.instance().types
    types["file"] = _BoundedFiles
    try:
        yield
    finally:
        types["file"] = FileConfigSource


def check_yaml_file(path: Path) -> None:
    """Check a YAML file before it is read.

    Args:
        path: the file.

    Raises:
        ValueError: the file is not YAML, contains something other than plain values, is nested too deeply, or is too large.
    """
    try:
        check_yaml_bounds(path.read_text("utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"{path} is not valid YAML, or contains something other than plain values: {problem}."
        ) from error
