"""Where sequences begin and end, against an oracle that walks from token to token."""

from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_modules import SourceShards
from data_modules.shards import source_inspection
from data_modules.shards.cut_into_sequences import sequence_borders
from data_modules.shards.memory_mapped_shards import TokenStream
from gpt_lightning.tokenizer import load_tokenizer

LENGTHS = st.lists(st.integers(1, 30), max_size=40)
MAX_SEQ_LEN = st.integers(1, 20)


def packed(lengths: list[int], max_seq_len: int, *, whole: bool = True) -> list[int]:
    ends = list(accumulate(lengths))
    borders = sequence_borders(sum(lengths), max_seq_len, document_ends=ends, whole=whole)
    assert borders.dtype == np.int64
    return [int(border) for border in borders]


def walked(lengths: list[int], max_seq_len: int) -> list[int]:
    """Token by token: a document that does not fit any more begins a sequence, and a full sequence ends."""
    borders, room, position = [0], max_seq_len, 0
    for length in lengths:
        if length > room and room < max_seq_len:
            borders.append(position)
            room = max_seq_len
        for _ in range(length):
            if room == 0:
                borders.append(position)
                room = max_seq_len
            room -= 1
            position += 1
    return [*borders, position] if position else borders


@given(lengths=LENGTHS, max_seq_len=MAX_SEQ_LEN, whole=st.booleans())
def test_documents_are_packed_as_one_would_by_hand(lengths: list[int], max_seq_len: int, whole: bool) -> None:
    assert packed(lengths, max_seq_len, whole=whole) == walked(lengths, max_seq_len)


@given(lengths=LENGTHS, max_seq_len=MAX_SEQ_LEN)
def test_every_token_is_in_one_sequence(lengths: list[int], max_seq_len: int) -> None:
    borders = packed(lengths, max_seq_len)
    assert borders[0] == 0
    assert borders[-1] == sum(lengths)
    assert all(0 < stop - start <= max_seq_len for start, stop in pairwise(borders))


@given(lengths=LENGTHS, max_seq_len=MAX_SEQ_LEN)
def test_only_what_is_too_long_is_cut(lengths: list[int], max_seq_len: int) -> None:
    """And it begins a sequence, so that it is cut as few times as can be; nothing that would have fitted is put off."""
    borders = packed(lengths, max_seq_len)
    ends = list(accumulate(lengths))
    for end, length in zip(ends, lengths, strict=True):
        cuts = [border for border in borders if end - length < border < end]
        assert len(cuts) == (length - 1) // max_seq_len
        if cuts:
            assert end - length in borders
    for start, stop in pairwise(borders):
        following = min((end for end in ends if end > stop), default=None)
        if following is not None and stop in ends:
            assert following - start > max_seq_len


@given(lengths=LENGTHS, max_seq_len=MAX_SEQ_LEN, more=st.integers(1, 50))
def test_a_document_without_an_end_is_read_too(lengths: list[int], max_seq_len: int, more: int) -> None:
    ends = list(accumulate(lengths))
    n_tokens = sum(lengths) + more
    borders = sequence_borders(n_tokens, max_seq_len, document_ends=ends, whole=True).tolist()
    assert borders[0] == 0
    assert borders[-1] == n_tokens
    assert all(0 < stop - start <= max_seq_len for start, stop in pairwise(borders))


@given(n_tokens=st.integers(0, 200), max_seq_len=MAX_SEQ_LEN)
def test_one_long_text_is_cut_evenly(n_tokens: int, max_seq_len: int) -> None:
    whole = sequence_borders(n_tokens, max_seq_len, document_ends=None, whole=True).tolist()
    assert whole == [j * max_seq_len for j in range(n_tokens // max_seq_len + 1)]
    rest = [n_tokens] if n_tokens % max_seq_len else []
    assert sequence_borders(n_tokens, max_seq_len, document_ends=None, whole=False).tolist() == whole + rest


def stream_of(folder: Path, documents: list[list[int]], *, masked: bool, n_shards: int = 1) -> TokenStream:
    """Documents of these ids, 0 ending each, in shards of about one size; an even id bears loss."""
    ids = np.array([i for document in documents for i in [*document, 0]], dtype=np.uint16)
    folder.mkdir(parents=True)
    shards = np.array_split(ids, n_shards)
    for n, shard in enumerate(shards):
        np.save(folder / f"tokens_{n:04d}.npy", shard)
        np.save(folder / f"mask_{n:04d}.npy", shard % 2 == 0)
    return opened(folder, [len(shard) for shard in shards], masked=masked)


def opened(folder: Path, lengths: list[int], *, masked: bool) -> TokenStream:
    """Shards of so many ids that nobody verifies."""
    kinds = ("tokens", "mask") if masked else ("tokens",)
    shards = [
        {"tokens": length, "sha256": {f"{kind}_{n:04d}.npy": "" for kind in kinds}} for n, length in enumerate(lengths)
    ]
    return TokenStream(folder, {"masked": masked, "dtype": "uint16", "shards": shards}, eot_id=0)


DOCUMENTS = [
    [1, 2, 3],
    [4],
    [5, 6, 7, 8, 9, 10, 11],
    [12, 13],
    [14, 15, 16, 17],
]  # 4, 2, 8, 3, 5 tokens with their ends


@pytest.mark.parametrize(
    ("max_seq_len", "borders", "padding"),
    [
        (5, [0, 4, 6, 11, 14, 17, 22], 1 - 22 / 30),  # |1 2 3 .|4 .|5 6 7 8 9|10 11 .|12 13 .|14 15 16 17 .|
        (6, [0, 6, 12, 17, 22], 1 - 22 / 24),  # |1 2 3 . 4 .|5 6 7 8 9 10|11 . 12 13 .|14 15 16 17 .|
        (8, [0, 6, 14, 22], 1 - 22 / 24),
        (22, [0, 22], 0.0),
        (44, [0, 22], 0.5),
    ],
)
@pytest.mark.parametrize("n_shards", [1, 3])
def test_padding_as_counted_by_hand(
    max_seq_len: int, borders: list[int], padding: float, n_shards: int, tmp_path: Path
) -> None:
    stream = stream_of(tmp_path / "chat", DOCUMENTS, masked=True, n_shards=n_shards)
    assert stream.sequences(max_seq_len, whole=True).tolist() == borders
    assert source_inspection.padding_share(stream, max_seq_len) == pytest.approx(padding)
    text = stream_of(tmp_path / "text", DOCUMENTS, masked=False, n_shards=n_shards)
    assert source_inspection.padding_share(text, max_seq_len) == 0.0
    for each in (stream, text):
        assert source_inspection.document_lengths(each).tolist() == [4, 2, 8, 3, 5]


def test_lengths_of_a_stream_that_does_not_end(tmp_path: Path) -> None:
    stream = stream_of(tmp_path / "open", DOCUMENTS, masked=False)
    shard = np.load(tmp_path / "open" / "tokens_0000.npy")[:-1]
    np.save(tmp_path / "open" / "tokens_0000.npy", shard)
    stream = opened(tmp_path / "open", [len(shard)], masked=False)
    assert source_inspection.document_lengths(stream).tolist() == [4, 2, 8, 3, 4]


def test_inspected_sequences_are_what_a_model_gets(tiny_data: Path) -> None:
    """Chosen by the seed alone, each once, and their pieces are their tokens and their mask."""
    source, tokenizer = SourceShards(tiny_data / "bpe_512" / "docstrings"), load_tokenizer(tiny_data / "bpe_512")
    borders = source.train.sequences(64, whole=False).tolist()
    everything = source_inspection.random_sequences(source.train, 64, len(borders) + 5, seed=1)
    assert everything == list(pairwise(borders))
    chosen = source_inspection.random_sequences(source.train, 64, 10, seed=1)
    assert chosen == source_inspection.random_sequences(source.train, 64, 10, seed=1)
    assert chosen != source_inspection.random_sequences(source.train, 64, 10, seed=2)
    assert len(chosen) == len(set(chosen)) == 10
    assert set(chosen) <= set(everything)
    for start, stop in chosen:
        ids, mask = source.train.read(start, stop), source.train.read_mask(start, stop)
        pieces = list(source_inspection.token_texts(source.train, start, stop, tokenizer))
        for bears_loss in (True, False):
            text = b"".join(tokenizer.decode_bytes([i]) for i in ids[mask == bears_loss].tolist())
            assert "".join(piece for piece, bears in pieces if bears == bears_loss) == text.decode(errors="replace")
        assert all(first[1] != second[1] for first, second in pairwise(pieces))
