"""BLEU as it can be compared: sacreBLEU's."""


def corpus(translations: list[str], references: list[str]) -> tuple[float, str]:
    """Corpus BLEU (cased, 13a tokenisation), and its signature."""
    import sacrebleu  # here because it takes a while to import

    metric = sacrebleu.BLEU()
    score = metric.corpus_score(translations, [references]).score
    return score, str(metric.get_signature())
