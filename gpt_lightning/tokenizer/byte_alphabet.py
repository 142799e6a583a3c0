"""GPT-2's byte alphabet, used in all byte-level BPE files: one printable character per byte."""

# Bytes that are printable represent themselves; the others are mapped to characters from U+0100 on.
PRINTABLE = [b for b in range(256) if chr(b).isprintable() and chr(b) != " " and b != 0xAD]
OTHERS = [b for b in range(256) if b not in PRINTABLE]
_BYTE_OF = {chr(b): b for b in PRINTABLE} | {chr(256 + n): b for n, b in enumerate(OTHERS)}


def printable_to_bytes(written: str) -> bytes:
    """Return the bytes of a token that is written in this alphabet."""
    return bytes(_BYTE_OF[character] for character in written)
