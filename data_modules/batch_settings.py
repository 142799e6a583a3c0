"""Settings that determine how sequences are grouped into batches."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How sequences are grouped into batches, and how many processes read the sequences.

    Raises:
        ValueError: A number is out of range.
    """

    max_seq_len: int
    """Sequence length in tokens."""
    micro_batch: int
    """Number of sequences in one forward pass on one rank."""
    val_sequences: int | None
    """Maximum number of validation sequences per source, evenly spaced over the split; None: all."""
    workers: int
    """Number of processes that read ahead; 0 reads in the training process. The batches are the same."""
    eot_id: int | None = None
    """The id that starts a document, if batches contain document borders; None: no borders."""

    def __post_init__(self) -> None:
        workers, val_sequences = self.workers, self.val_sequences
        if not isinstance(workers, int) or workers < 0:
            raise ValueError(f"data.workers is {workers!r}: it must be a number of processes, 0 or more.")
        if val_sequences is not None and (not isinstance(val_sequences, int) or val_sequences < 1):
            raise ValueError(
                f"data.val_sequences is {val_sequences!r}: it must be a number of sequences, 1 or more, or null."
            )
