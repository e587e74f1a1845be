"""RoBERTa (Liu et al. 2019): BERT whose positions are counted, from after the padding's own."""

import dataclasses

from attention_variants.models import bert


def pretrained(found) -> tuple[bert.Bert, dict[str, str]]:
    """As in `models.bert`."""
    found.setdefault("pad_token_id", 1)
    model, names = bert.pretrained(found)
    return model.clone(config=dataclasses.replace(model.config, positions="counted")), names
