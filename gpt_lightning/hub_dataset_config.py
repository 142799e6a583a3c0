"""Typed settings of a dataset on the Hugging Face hub, as conf/source and conf/task have them under `hub`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """One split of one configuration of a dataset on the Hugging Face hub."""

    id: str
    """Repository on the hub, such as allenai/c4, or a local folder with the same layout."""
    config: str | None
    """Name of the configuration in the repository; None: the repository has only one."""
    split: str
    """Name of the split, such as train."""
