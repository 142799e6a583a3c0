"""What a corpus yields."""

from gpt_lightning.tokenizer import Message

Document = str | list[Message]


def text_of(document: Document) -> str:
    """All of a document's text: what decides its split, what is counted in bytes, what a tokenizer trains on."""
    if isinstance(document, str):
        return document
    return "\n".join(message["content"] for message in document)
