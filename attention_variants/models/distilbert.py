"""DistilBERT (Sanh et al. 2019): BERT with half of the layers, without token types, and with names of its own."""

from attention_variants.models import bert

LAYER = {
    "self_attention/query": "attention.q_lin",
    "self_attention/key": "attention.k_lin",
    "self_attention/value": "attention.v_lin",
    "self_attention/out": "attention.out_lin",
    "self_attention_residual/norm": "sa_layer_norm",
    "feed_forward/inner": "ffn.lin1",
    "feed_forward/out": "ffn.lin2",
    "feed_forward_residual/norm": "output_layer_norm",
}


def pretrained(found) -> tuple[bert.Bert, dict[str, str]]:
    """As in `models.bert`."""
    config = bert.Config(
        layers=found["n_layers"],
        width=found["dim"],
        heads=found["n_heads"],
        feed_forward=found["hidden_dim"],
        activation=found["activation"],
        pad=found.get("pad_token_id", bert.Config.pad),
        rows=found["max_position_embeddings"],
        types=0,
    )
    names = bert.EMBEDDINGS | bert.numbered("encoder", "transformer.layer", LAYER, config.layers)
    return bert.Bert(config, "standard", found["vocab_size"]), names
