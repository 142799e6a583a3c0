"""Where documents come from. Each corpus is a function that returns an iterator of documents.

A document is a text, or a conversation (a list of messages) whose assistant turns alone bear loss.
"""

from data_modules.corpora.documents import Document
from data_modules.corpora.python_installation import docstrings, pydoc, readmes, stdlib

__all__ = ["Document", "docstrings", "pydoc", "readmes", "stdlib"]
