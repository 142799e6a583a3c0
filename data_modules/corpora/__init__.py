"""Corpora: sources of documents.

    find_hub_files, find_local_files ──files──> FileCorpus ──┐
    a source reader ─────────────────────> FunctionCorpus ───┴─chunks──> (workers) ──> documents

A document is a text, or a conversation (a list of messages) in which only the assistant's messages bear loss. Reading
can start at any record of any file, so interrupted work can continue where it stopped.
"""

from data_modules.corpora.corpus import BadRecord, Corpus, FunctionCorpus, TextOrConversation
from data_modules.corpora.custom_reader_corpus import CustomReaderCorpus
from data_modules.corpora.file_corpus import FileCorpus, FileRecords
from data_modules.corpora.find_hub_files import HubUnreachableError, find_hub_files
from data_modules.corpora.find_local_files import find_local_files
from data_modules.corpora.open_evaluation_records import open_task_records
from data_modules.corpora.python_installation_texts import docstrings, pydoc, readmes, stdlib

__all__ = [
    "BadRecord",
    "Corpus",
    "CustomReaderCorpus",
    "FileCorpus",
    "FileRecords",
    "FunctionCorpus",
    "HubUnreachableError",
    "TextOrConversation",
    "docstrings",
    "find_hub_files",
    "find_local_files",
    "open_task_records",
    "pydoc",
    "readmes",
    "stdlib",
]
