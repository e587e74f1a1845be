"""What takes no reading to classify sentences by: the most frequent class, their tokens in no order, their last word."""

import warnings

import numpy as np

from attention_variants.data.batches import Ragged


def accuracies(train: Ragged, train_N, judged: Ragged, judged_N, is_word_V) -> dict[str, float]:
    """The accuracy on judged sentences of three classifiers that are learned from the training sentences.

    `floor_majority`: the most frequent class. `floor_bag_of_tokens`: logistic regression on log(1 + how often
    a token occurs). `floor_last_word`: the most frequent class of those with the same last word.

    Args:
      train, judged: token ids. train_N, judged_N: numbers of their classes, all of them among the former.
      is_word_V: bool, which tokens are words; the others, such as full stops, are not seen by the last of the three.
    """
    majority = np.bincount(train_N).argmax()
    alone = (train_N == majority).all()
    bag = majority if alone else _by_bag(train, train_N, judged, len(is_word_V))
    return {
        "floor_majority": float(np.mean(judged_N == majority)),
        "floor_bag_of_tokens": float(np.mean(judged_N == bag)),
        "floor_last_word": float(np.mean(judged_N == _by_last_word(train, train_N, judged, is_word_V, majority))),
    }


def _by_bag(train: Ragged, train_N, judged: Ragged, vocabulary: int) -> np.ndarray:
    from scipy.sparse import csr_matrix  # these two take a second to import, and training does not need them
    from sklearn.linear_model import LogisticRegression

    def counts(rows: Ragged):
        # A copy, as duplicates are summed in place.
        found = csr_matrix((np.ones(len(rows.flat)), rows.flat, rows.starts), (len(rows), vocabulary), copy=True)
        found.sum_duplicates()
        return found.log1p()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where it has not converged it is a floor all the same
        return LogisticRegression(max_iter=200).fit(counts(train), train_N).predict(counts(judged))


def _by_last_word(train: Ragged, train_N, judged: Ragged, is_word_V, majority: int) -> np.ndarray:
    def last(rows: Ragged) -> np.ndarray:
        """(N,): the last word of each, or −1."""
        return np.array([next((token for token in row[::-1] if is_word_V[token]), -1) for row in rows])

    count_VC = np.zeros((len(is_word_V) + 1, train_N.max() + 1), int)
    np.add.at(count_VC, (last(train), train_N), 1)
    said_V = np.where(count_VC.any(1), count_VC.argmax(1), majority)
    return said_V[last(judged)]
