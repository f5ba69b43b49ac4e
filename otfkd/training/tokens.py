"""A run's text as an encoder reads it; what plans it needs no Lightning."""

from otfkd.base.processes import rank_zero_first
from otfkd.data.corpus import Corpus
from otfkd.data.tokens import TokenCache, token_cache
from otfkd.models.encoder import Encoder
from otfkd.training.run import Run


def read_tokens(run: Run, corpus: Corpus, encoder: Encoder) -> TokenCache:
    """A corpus as an encoder reads it, tokenised where it never was."""
    length = run.config.data.max_length
    return rank_zero_first(lambda: token_cache(corpus, encoder.tokenizer, length, run.cache, encoder.prompt))
