"""Join parts to a source: shards are renamed, not copied, and source.json is written last."""

import shutil
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.preparation.duplicate_detection import count_distinct
from data_modules.preparation.parallel_tokenization import MIXED
from data_modules.preparation.resumable_part import BAD_NAMED
from data_modules.preparation.validation_split import SPLITS
from data_modules.shards.shard_files import with_checksum
from gpt_lightning.durable_files import sync_folder, write_durably

_AT_ONCE = 1 << 20  # tokens


def join_parts(
    states: Sequence[Mapping[str, Any]], folders: Sequence[Path], target: Path, *, information: Mapping[str, Any]
) -> dict[str, Any]:
    """Join completed parts to one source, in order. If interrupted, joining starts again from the beginning.

    Args:
        states: Content of each part's part.json.
        folders: Folder of each part.
        target: The source's folder.
        information: Entries of source.json that do not follow from the parts.

    Returns:
        The content of source.json.

    Raises:
        ValueError: Some parts are chat and others are not.
    """
    masked = _are_masked(states)
    joined = folders[0].parent / "joined"
    vocab_size = information["tokenizer"]["vocab_size"]
    splits, counts = {}, {}
    for split in SPLITS:
        shards = _move_shards(states, folders, joined, split=split, masked=masked)
        counts[split], bearing = _count_ids(joined / split, len(shards), masked, vocab_size)
        totals = [state["splits"][split] or {"documents": 0, "bytes": 0} for state in states]
        splits[split] = {
            "documents": sum(total["documents"] for total in totals),
            "tokens": sum(shard["tokens"] for shard in shards),
            "loss_bearing_tokens": bearing,
            "bytes": sum(total["bytes"] for total in totals),
            "dtype": np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32).name,
            "masked": masked,
            "shards": shards,
        }
    content = with_checksum(
        {
            **information,
            "splits": splits,
            **_document_counts(states, folders),
            "unigram_loss": unigram_loss(counts["train"], counts["val"]),
        }
    )
    write_durably(joined / "source.json", content)
    joined.replace(target)
    sync_folder(target.parent)
    for folder in folders:
        (folder / "part.json").unlink(missing_ok=True)  # so that leftovers are not mistaken for a part
    shutil.rmtree(folders[0].parent)
    return content


def _are_masked(states: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the parts are chat.

    Raises:
        ValueError: Some are and others are not.
    """
    kinds = {state["masked"] for state in states} - {None}
    if len(kinds) > 1:
        raise ValueError(MIXED)
    return True in kinds


def _move_shards(
    states: Sequence[Mapping[str, Any]], folders: Sequence[Path], joined: Path, *, split: str, masked: bool
) -> list[dict[str, Any]]:
    """Move the shards of a split to `joined`, numbered over all parts. Returns their entries in source.json."""
    (joined / split).mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Any]] = []
    for state, folder in zip(states, folders, strict=True):
        for number, shard in enumerate((state["splits"][split] or {"shards": []})["shards"]):
            # parts prepared by an earlier version have only sha256
            checksums = [key for key in ("sha256", "crc32_per_mib") if key in shard]
            shards.append({"tokens": shard["tokens"], **{key: {} for key in checksums}})
            for kind in ("tokens", "mask") if masked else ("tokens",):
                name = f"{kind}_{len(shards) - 1:04d}.npy"
                old, new = folder / split / f"{kind}_{number:04d}.npy", joined / split / name
                if old.exists():
                    old.replace(new)
                for key in checksums:
                    shards[-1][key][name] = shard[key][old.name]
    sync_folder(joined / split)
    return shards


def _document_counts(states: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> dict[str, Any]:
    """Return the entries of source.json about documents and records."""
    documents = sum(state["documents"] for state in states)
    deduplicate = states[0]["request"]["deduplicate"]
    return {
        "documents": documents - sum(state["duplicates"] for state in states) * (deduplicate is not None),
        "records": sum(state["records"] for state in states),
        "bad_records": {
            "count": sum(state["bad"]["count"] for state in states),
            "first": list(chain.from_iterable(state["bad"]["first"] for state in states))[:BAD_NAMED],
        },
        "duplicates": {
            "count": documents - count_distinct(folder / "seen.sqlite" for folder in folders),
            "removed": deduplicate == "exact",
        },
    }


def unigram_loss(train_counts: np.ndarray, val_counts: np.ndarray) -> float:
    """Return the validation loss of an add-one smoothed unigram model of the training tokens, in nats per loss-bearing
    token.

    This is the loss of a model that only knows the frequency of each token; a trained model must be better.

    Args:
        train_counts: (vocab_size,) occurrences of each id among the loss-bearing training tokens.
        val_counts: (vocab_size,) the same for validation.
    """
    log_probabilities = np.log(train_counts + 1) - np.log(train_counts.sum() + len(train_counts))
    return float(-(val_counts * log_probabilities).sum() / max(1, val_counts.sum()))


def _count_ids(folder: Path, n_shards: int, masked: bool, vocab_size: int) -> tuple[np.ndarray, int]:
    """Return the occurrences of each id among the loss-bearing tokens of a split, (vocab_size,), and their sum."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for number in range(n_shards):
        ids = np.load(folder / f"tokens_{number:04d}.npy")
        if masked:
            ids = ids[np.load(folder / f"mask_{number:04d}.npy")]
        for start in range(0, len(ids), _AT_ONCE):  # in pieces, because bincount needs eight bytes per token
            counts += np.bincount(ids[start : start + _AT_ONCE], minlength=vocab_size)
    return counts, int(counts.sum())
