"""Settings that, with the corpus and the tokenizer, determine a source's shards."""

from dataclasses import dataclass

from data_modules.preparation.validation_split import SPLIT_RULES


@dataclass(frozen=True)
class PreparationSettings:
    """How documents become shards.

    Raises:
        ValueError: A value is out of range.
    """

    val_fraction: float = 0.01
    """Share of the documents (for `tail`, of each document's characters) used for validation; at least one document."""
    split: str = "hash"
    """`hash` or `tail`, see data_modules/preparation/validation_split.py."""
    limit_tokens: int | None = None
    """Use documents up to this total number of tokens, training and validation together; None: all documents."""
    on_bad_record: str = "error"
    """`error`, or `skip`: count bad records, and stop if more than one in a thousand is bad."""
    deduplicate: str | None = None
    """`exact`: of documents with equal text, keep only the first."""
    shard_tokens: int = 10_000_000
    """A shard ends with the document that reaches this number of tokens."""

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"val_fraction is {self.val_fraction}: it must be above 0 and below 1.")
        for name, value, allowed in (
            ("split", self.split, SPLIT_RULES),
            ("on_bad_record", self.on_bad_record, ("error", "skip")),
            ("deduplicate", self.deduplicate, (None, "exact")),
        ):
            if value not in allowed:
                choices = " or ".join("null" if choice is None else choice for choice in allowed)
                raise ValueError(f"{name} is {value}: it must be {choices}.")
        for name in ("limit_tokens", "shard_tokens"):
            number = getattr(self, name)
            if number is not None and (not isinstance(number, int) or number < 1):
                raise ValueError(f"{name} is {number!r}: it must be a whole number of tokens, 1 or more.")
