"""From a map between tokens, decoder steps and source tokens, to one between words, and to links (Kobayashi et al. 2020)."""

import numpy as np

from attention_variants.data.links import Links

# Which decoder steps stand for target tokens: AWO (align with output) takes the one that predicts a token, AWI (align with input)
# the one that is fed with it. The first step is fed with BEGIN, the last predicts END.
STEPS = {"AWO": np.s_[:-1], "AWI": np.s_[1:]}


def to_words(map_TS: np.ndarray, source_S, target_T, setting: str) -> np.ndarray:
    """The map from target words (rows) to source words and, in the last column, END; of as many heads as stand in front.

    What the pieces of a source word have is summed, and of that the mean is taken over the pieces of a target word.

    Args:
      map_TS: (…, T + 1, S + 1), a row for each decoder step, a column for each source token, END last.
      source_S, target_T: the number of the word that each token is of, without END; 0, 1, … in order.
      setting: "AWO" or "AWI".

    Raises:
      ValueError: a map of another shape, or words without a token.
    """
    map_TS, source_S, target_T = np.asarray(map_TS, float), np.asarray(source_S, int), np.asarray(target_T, int)
    if map_TS.shape[-2:] != (len(target_T) + 1, len(source_S) + 1):
        raise ValueError(
            f"a map of shape {map_TS.shape}; expected (…, {len(target_T) + 1}, {len(source_S) + 1}) as there are tokens"
        )
    of_source_SW, of_target_TW = _membership(np.append(source_S, source_S.max(initial=-1) + 1)), _membership(target_T)
    return (of_target_TW / of_target_TW.sum(0)).T @ (map_TS[..., STEPS[setting], :] @ of_source_SW)


def to_links(best_T: np.ndarray, end: int) -> Links:
    """The links of target words with the source words of these numbers, of which `end` is none."""
    return {(s, t) for t, s in enumerate(best_T.tolist()) if s != end}


def _membership(word_T: np.ndarray) -> np.ndarray:
    """(tokens, words): 1.0 where a token is of a word."""
    if word_T[:1].any() or not np.isin(np.diff(word_T), (0, 1)).all():
        raise ValueError(f"words {word_T.tolist()}; expected numbers from 0 in order, none left out")
    return (word_T[:, None] == np.arange(word_T.max(initial=-1) + 1)).astype(float)
