"""Documents to shards.

    documents ──split by a hash of their text──> train │ val ──tokenizer──> shards + source.json

Written beside their place and renamed as a whole: a prepared source is complete or absent.
"""

from data_modules.preparation.prepare_source import prepare_source

__all__ = ["prepare_source"]
