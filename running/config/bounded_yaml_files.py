"""Check the user's YAML files: their depth and size before they are read, because they may come from a stranger; and the
`# @package` line of a config."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from yaml import YAMLError

from gpt_lightning.bounded_yaml import check_yaml_bounds

# package of each file in these groups; the others have Hydra's default
_PACKAGES = {"experiment": "_global_", "hardware": "_global_", "source": "sources.{name}"}
CONF = Path(__file__).resolve().parents[2] / "conf"


class _BoundedFiles(FileConfigSource):
    """Reader of config folders that checks files outside conf/."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path, self._normalize_file_name(config_path))
        if path.is_file() and not path.is_relative_to(CONF):
            check_yaml_file(path)
            result = super().load_config(config_path)
            _check_package(path, config_path, result.header["package"])
            return result
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


def _check_package(path: Path, config_path: str, package: str | None) -> None:
    """Check where a file of a group puts its settings.

    Args:
        path: the file.
        config_path: group and name of the config.
        package: what the file's `# @package` line says; None: the file has no such line.

    Raises:
        ValueError: the line is missing or wrong.
    """
    group, _, name = config_path.removesuffix(".yaml").partition("/")
    needed = _PACKAGES.get(group, "").format(name=Path(name).name)
    if name and needed and package != needed:
        there = f", not '# @package {package}'" if package else ", which is missing"
        raise ValueError(f"{path}: the first line must be '# @package {needed}'{there}.")


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
