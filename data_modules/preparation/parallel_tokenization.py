"""Tokenize chunks in several processes, in order."""

import os
import traceback
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from data_modules.child_processes import ChildProcesses
from data_modules.corpora.corpus import BadRecord, Chunk, Corpus, TextOrConversation, corpus_identity, document_text
from data_modules.preparation.preparation_settings import PreparationSettings
from data_modules.preparation.validation_split import (
    cut_tail,
    first_position,
    is_validation,
    split_position,
    text_digest,
)
from gpt_lightning.tokenizer import Tokenizer
from gpt_lightning.tokenizer.base import CHAT_START

MIXED = "the source has texts and conversations: it must have only one kind. Split it into two sources."


class EncodedChunk(NamedTuple):
    """The tokens of a chunk's documents. (n,) arrays have one entry per document, or two if split is `tail`."""

    ids: np.ndarray  # (tokens,) uint16 or uint32, with an end-of-text id after each document; for `tail` before each
    mask: np.ndarray | None  # (tokens,) bool: whether the token bears loss; None: all do
    lengths: np.ndarray  # (n,) int64, number of tokens
    for_val: np.ndarray  # (n,) bool
    n_bytes: np.ndarray  # (n,) int64, UTF-8 bytes of text
    digests: list[bytes]  # of each document
    bad: list[tuple[int, str]]  # (number of documents before it, location and reason) of each bad record


class ChunkEncoder:
    """Convert chunks of one corpus to tokens. An encoder can be pickled."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, recipe: PreparationSettings) -> None:
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._recipe = recipe
        self._first_position = first_position(corpus)

    def encode(self, file: int, chunk: Chunk) -> EncodedChunk:
        """Raises ValueError if texts and conversations are mixed, or the tokenizer lacks chat tokens for chat."""
        documents: list[TextOrConversation] = []
        bad: list[tuple[int, str]] = []
        for where, document in self._corpus.documents(file, chunk):
            if isinstance(document, BadRecord):
                bad.append((len(documents), f"{where}: {document}"))
            else:
                documents.append(document)
        is_chat = any(isinstance(document, list) for document in documents)
        if is_chat:
            self._refuse_mixtures(documents)
        digests = [text_digest(corpus_identity(document)) for document in documents]
        if self._recipe.split == "tail":
            texts = [
                piece
                for document in documents
                for piece in cut_tail(document_text(document), self._recipe.val_fraction)
            ]
            for_val = np.arange(len(texts)) % 2 == 1
            documents = list(texts)
        else:
            texts = [document_text(document) for document in documents]
            positions = np.array([split_position(text) for text in texts])
            for_val = is_validation(positions, self._recipe.val_fraction, self._first_position)
        encoded, masks = self._tokens(documents, is_chat)
        return EncodedChunk(
            ids=np.concatenate(encoded) if encoded else np.zeros(0, self._dtype),
            mask=np.concatenate(masks) if masks else None,
            lengths=np.array([len(ids) for ids in encoded], dtype=np.int64),
            for_val=for_val,
            n_bytes=np.array([len(text.encode()) for text in texts], dtype=np.int64),
            digests=digests,
            bad=bad,
        )

    @property
    def _dtype(self) -> np.dtype:
        return np.dtype(np.uint16 if self._tokenizer.vocab_size <= 2**16 else np.uint32)

    def _tokens(self, documents: list[TextOrConversation], is_chat: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the ids of each document with its end-of-text id and, for chat, loss masks, which exclude that id."""
        end = np.array([self._tokenizer.eot_id], dtype=self._dtype)
        if is_chat:
            pairs = [self._tokenizer.encode_chat(document) for document in documents if not isinstance(document, str)]
            ids = [np.array([*ids, self._tokenizer.eot_id], dtype=self._dtype) for ids, _ in pairs]
            return ids, [np.array([*mask, 0], dtype=np.bool_) for _, mask in pairs]
        encoded = self._tokenizer.encode_batch([document for document in documents if isinstance(document, str)])
        if self._recipe.split == "tail":
            return [np.concatenate([end, ids.astype(self._dtype)]) for ids in encoded], []
        return [np.concatenate([ids.astype(self._dtype), end]) for ids in encoded], []

    def _refuse_mixtures(self, documents: list[TextOrConversation]) -> None:
        if not all(isinstance(document, list) for document in documents):
            raise ValueError(MIXED)
        if CHAT_START not in self._tokenizer.special_ids:
            raise ValueError(
                f"tokenizer {self._tokenizer.name} has no chat tokens: it must have them, because the source is chat. "
                "Use gpt2_chatml, or a BPE that prepare.py trains."
            )
        if self._recipe.split == "tail":
            raise ValueError("split is tail: it must be hash for chat, because tail cuts documents.")


def encode_in_order(
    encoder: ChunkEncoder, chunks: Iterable[tuple[int, Chunk]], *, workers: int
) -> Generator[tuple[int, Chunk, EncodedChunk], None, None]:
    """Tokenize chunks in parallel, and yield the results in order.

    At most two chunks per worker are in progress, so memory does not depend on the size of the corpus.

    Args:
        encoder: Converts a chunk to tokens.
        chunks: (index of the file, chunk) in order.
        workers: Number of processes; 1: only this process.

    Yields:
        (index of the file, chunk without its payload, tokens) of each chunk.

    Raises:
        ValueError: A worker raised this error, or was killed.
    """
    if workers == 1:
        for file, chunk in chunks:
            yield file, chunk._replace(payload=None), encoder.encode(file, chunk)
        return
    pool = _Workers(encoder, workers)
    under_way: deque[tuple[int, Chunk, Future[EncodedChunk]]] = deque()
    try:
        for file, chunk in chunks:
            under_way.append((file, chunk._replace(payload=None), pool.submit(file, chunk)))
            if len(under_way) > 2 * workers:
                yield _finished(under_way)
        while under_way:
            yield _finished(under_way)
    finally:
        pool.end()


def _finished(under_way: deque[tuple[int, Chunk, Future[EncodedChunk]]]) -> tuple[int, Chunk, EncodedChunk]:
    file, chunk, future = under_way.popleft()
    return file, chunk, future.result()


class _Workers:
    """Child processes, and a thread for each that waits for its results."""

    def __init__(self, encoder: ChunkEncoder, number: int) -> None:
        self._threads = ThreadPoolExecutor(number)
        self._children = ChildProcesses(_work, encoder, number)
        self._idle: SimpleQueue[Connection] = SimpleQueue()
        for child in self._children.all:
            self._idle.put(child.connection)

    def submit(self, file: int, chunk: Chunk) -> Future[EncodedChunk]:
        return self._threads.submit(self._ask, file, chunk)

    def _ask(self, file: int, chunk: Chunk) -> EncodedChunk:
        connection = self._idle.get()
        try:
            connection.send((file, chunk))
            answer: EncodedChunk | Exception = connection.recv()
        except (EOFError, OSError) as error:
            raise ValueError(
                f"one of the {len(self._children.all)} workers was killed, possibly because memory ran out: start the "
                "same command with fewer workers; it continues where it stopped."
            ) from error
        finally:
            self._idle.put(connection)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end(self) -> None:
        """Kill all workers, whatever they are doing."""
        self._children.end()
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().close()


def _work(encoder: ChunkEncoder, connection: Connection) -> None:
    """Main function of a worker."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the other workers use the other cores
    while True:
        file, chunk = connection.recv()
        connection.send(_answer(encoder, file, chunk))


def _answer(encoder: ChunkEncoder, file: int, chunk: Chunk) -> EncodedChunk | Exception:
    try:
        return encoder.encode(file, chunk)
    except Exception as error:
        error.add_note(traceback.format_exc())
        return error
