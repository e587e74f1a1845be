"""`torch.nn.Transformer` with our parameters: eager, its own attention (SDPA), torch's Adam."""

import math

import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from attention_variants.data.tokens import BEGIN, PAD
from attention_variants.ops.positions import sinusoidal

HEADS = ("query", "key", "value")
LONGEST = 256  # positions there are encodings for


class Transformer(nn.Module):
    """Pre-norm, sinusoidal positions, one embedding for source, target and output."""

    def __init__(self, config, vocabulary: int, rate: float):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, config.width)
        sizes = (config.width, config.heads, config.feed_forward, rate)
        options = dict(norm_first=True, batch_first=True)
        layer = nn.TransformerEncoderLayer(*sizes, **options)
        encoder = nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(config.width), enable_nested_tensor=False)
        options |= dict(num_decoder_layers=config.layers, dim_feedforward=config.feed_forward, dropout=rate)
        self.transformer = nn.Transformer(config.width, config.heads, custom_encoder=encoder, **options)
        self.dropout = nn.Dropout(rate)
        self.register_buffer("at", torch.from_numpy(np.array(sinusoidal(jnp.arange(LONGEST), config.width))), persistent=False)
        # Ours drops no attention weights here, and nothing between the layers of a feed-forward net.
        for module in self.transformer.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
            if isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
                module.dropout = nn.Identity()

    def embed(self, tokens):
        return self.dropout(self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim) + self.at[: tokens.shape[1]])

    def forward(self, source, target):
        before = nn.functional.pad(target, (1, 0), value=BEGIN)[:, :-1]
        padding = source == PAD
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        masks = dict(src_key_padding_mask=padding, memory_key_padding_mask=padding, tgt_mask=causal, tgt_is_causal=True)
        return self.transformer(self.embed(source), self.embed(before), **masks) @ self.embedding.weight.T


def loss(model, batch, smoothing: float):
    """Label-smoothed cross-entropy per target token."""
    logits = model(batch["source"], batch["target"])
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch["target"].flatten(), ignore_index=PAD, label_smoothing=smoothing)


def load(model: Transformer, params: dict) -> None:
    """Puts the parameters of our Transformer into torch's."""
    transformer, state = model.transformer, {"embedding.weight": params["embedding"]["embedding"]}

    def linear(name, kernel, bias):
        state[f"{name}.weight"], state[f"{name}.bias"] = np.asarray(kernel).T, bias

    def norm(name, ours):
        state[f"{name}.weight"], state[f"{name}.bias"] = ours["scale"], ours["bias"]

    def attention(name, ours):
        flat = [(np.reshape(ours[k]["kernel"], (model.embedding.embedding_dim, -1)).T, np.ravel(ours[k]["bias"])) for k in HEADS]
        state[f"{name}.in_proj_weight"], state[f"{name}.in_proj_bias"] = map(np.concatenate, zip(*flat, strict=True))
        linear(f"{name}.out_proj", np.reshape(ours["out"]["kernel"], (-1, model.embedding.embedding_dim)), ours["out"]["bias"])

    for side, attentions in (("encoder", {"self_attn": "self"}), ("decoder", {"self_attn": "self", "multihead_attn": "cross"})):
        for i in range(len(getattr(transformer, side).layers)):
            ours, name = params[f"{side}_{i}"], f"transformer.{side}.layers.{i}"
            for theirs, kind in attentions.items():
                attention(f"{name}.{theirs}", ours[f"{kind}_attention"])
            residuals = [*(f"{kind}_attention" for kind in attentions.values()), "feed_forward"]
            for n, residual in enumerate(residuals, start=1):
                norm(f"{name}.norm{n}", ours[f"{residual}_residual"]["norm"])
            for theirs, part in (("linear1", "inner"), ("linear2", "out")):
                linear(f"{name}.{theirs}", **ours["feed_forward"][part])
        norm(f"transformer.{side}.norm", params[f"{side}_norm"])
    model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()})
