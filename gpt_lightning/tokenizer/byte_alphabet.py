"""How GPT-2's files, and all byte-level BPE files since, write bytes: one printable character each."""

# Bytes that are printable as themselves come first, the others from U+0100 on.
PRINTABLE = [b for b in range(256) if chr(b).isprintable() and chr(b) != " " and b != 0xAD]
OTHERS = [b for b in range(256) if b not in PRINTABLE]
_BYTE_OF = {chr(b): b for b in PRINTABLE} | {chr(256 + n): b for n, b in enumerate(OTHERS)}


def printable_to_bytes(written: str) -> bytes:
    """The bytes of a token as such a file spells it."""
    return bytes(_BYTE_OF[character] for character in written)
