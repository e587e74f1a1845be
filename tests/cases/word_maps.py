"""The links of one map between tokens."""

from attention_variants.analysis.word_maps import to_links, to_words


def links_of(map_TS, source_S, target_T, setting: str):
    """A link for each target word, with the source word that it has most of; none where END has most. Arguments as `to_words`."""
    words_TS = to_words(map_TS, source_S, target_T, setting)
    return to_links(words_TS.argmax(-1), words_TS.shape[-1] - 1)
