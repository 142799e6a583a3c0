"""Prepared data on disk: token shards of a source, their integrity, and sequences read from them."""
