"""Compose a command line once, for the checks and for the command. (`@hydra.main` would compose the command line twice
more.)"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, run_and_report
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, open_dict

from running.config.bounded_yaml_files import CONF


def read_configs_from(folders: Sequence[Path]) -> None:
    """Let Hydra read configs from these folders, as `@hydra.main` does. Hydra must be initialized.

    Args:
        folders: the folder of the main config, and that of `--config-dir`, if given.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    search_path = create_config_search_path(str(folders[0]))
    for folder in folders[1:]:
        search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    hydra.config_loader = _LoaderBeforeValues(search_path)


def chosen_config() -> DictConfig | None:
    """The last composed config before the values of the command line were set, without `hydra`.

    None: no config has been composed. Must be called inside `composing`.
    """
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, _LoaderBeforeValues)
    return None if loader.before_values is None else without_hydra(loader.before_values)


def compose_run(config_name: str, settings: Sequence[str]) -> tuple[DictConfig, DictConfig]:
    """Compose a command line as `@hydra.main` does. Must be called inside `composing`.

    Args:
        config_name: name of the main config.
        settings: `key=value` each.

    Returns:
        The config, including `hydra`; and the config before the values of `settings` are set, with the files that
        `settings` choose and without `hydra`.
    """
    config = compose(config_name, list(settings), return_hydra_config=True)
    before_values = chosen_config()
    assert before_values is not None
    return config, before_values


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy of a composed config without the section `hydra`."""
    config = copy.deepcopy(config)
    with open_dict(config):
        del config["hydra"]
    return config


def run_composed(task: Callable[[DictConfig], Any], command: str, config: DictConfig) -> None:
    """Run a command as `@hydra.main` does, with a config that is already composed.

    Args:
        task: the command's function, without a decorator.
        command: name of the command.
        config: the config, including `hydra`.
    """
    hydra = Hydra(task_name=command, config_loader=_ComposedConfig(config))
    GlobalHydra.instance().initialize(hydra)
    try:
        run_and_report(lambda: hydra.run(config.hydra.job.config_name, task, overrides=[]))
    finally:
        GlobalHydra.instance().clear()


class _LoaderBeforeValues(ConfigLoaderImpl):
    """Hydra's loader. It keeps a copy of the config before it sets the values of the command line."""

    before_values: DictConfig | None = None

    def _compose_config_from_defaults_list(self, *args: Any, **options: Any) -> DictConfig:
        config = super()._compose_config_from_defaults_list(*args, **options)
        self.before_values = copy.deepcopy(config)
        return config


class _ComposedConfig(ConfigLoaderImpl):
    """A loader that gives Hydra a config that is already composed."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__(create_config_search_path(str(CONF)))
        self._config = config

    def load_configuration(self, *_: Any, **__: Any) -> DictConfig:
        return self._config
