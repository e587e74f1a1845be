"""Hugging Face's Marian (`transformers.MarianMTModel`) with our parameters, and its beam search."""

import jax.numpy as jnp
import numpy as np
import torch
import transformers

from attention_variants.data.tokens import BEGIN, END, PAD
from attention_variants.models import transformer
from attention_variants.ops.positions import sinusoidal

HEADS = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}


def build(config: transformer.Config, vocabulary: int, params: dict, longest: int) -> transformers.MarianMTModel:
    """The model that a post-norm Transformer of ours is, with sinusoidal positions up to `longest`."""
    shared = dict(layers=config.layers, attention_heads=config.heads, ffn_dim=config.feed_forward)
    sizes = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in shared.items()}
    tokens = dict(pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=BEGIN, forced_eos_token_id=None)
    options = dict(vocab_size=vocabulary, d_model=config.width, max_position_embeddings=longest, activation_function="relu")
    marian = transformers.MarianConfig(**sizes, **tokens, **options, scale_embedding=True, dropout=0.0)
    model = transformers.MarianMTModel(marian).eval()
    state = dict(model.state_dict())  # the bias of the logits, zeros, stays
    embeddings = ("model.shared", "lm_head", "model.encoder.embed_tokens", "model.decoder.embed_tokens")
    found = {f"{name}.weight": params["embedding"]["embedding"] for name in embeddings}
    positions = np.array(sinusoidal(jnp.arange(longest), config.width))
    for side, attentions in (("encoder", {"self": "self_attn"}), ("decoder", {"self": "self_attn", "cross": "encoder_attn"})):
        found[f"model.{side}.embed_positions.weight"] = positions
        for i in range(config.layers):
            found |= _layer(f"model.{side}.layers.{i}", params[f"{side}_{i}"], attentions, config.width)
    state |= {name: torch.from_numpy(np.array(value)) for name, value in found.items() if name in state}
    model.load_state_dict(state)
    return model


def _layer(name: str, ours: dict, attentions: dict, width: int) -> dict:
    norms = {f"{kind}_attention": f"{theirs}_layer_norm" for kind, theirs in attentions.items()}
    found = {}
    for residual, theirs in (norms | {"feed_forward": "final_layer_norm"}).items():
        norm = ours[f"{residual}_residual"]["norm"]
        found |= {f"{name}.{theirs}.weight": norm["scale"], f"{name}.{theirs}.bias": norm["bias"]}
    linear = {"fc1": ours["feed_forward"]["inner"], "fc2": ours["feed_forward"]["out"]}
    for kind, theirs in attentions.items():
        heads = ours[f"{kind}_attention"]
        for head, projection in HEADS.items():
            kernel = np.reshape(heads[head]["kernel"], (width, -1))
            linear[f"{theirs}.{projection}"] = {"kernel": kernel, "bias": np.ravel(heads[head]["bias"])}
        linear[f"{theirs}.out_proj"] = {"kernel": np.reshape(heads["out"]["kernel"], (-1, width)), "bias": heads["out"]["bias"]}
    for theirs, dense in linear.items():
        found |= {f"{name}.{theirs}.weight": np.asarray(dense["kernel"]).T, f"{name}.{theirs}.bias": dense["bias"]}
    return found


class EndsAt(transformers.LogitsProcessor):
    """No hypothesis ends before its row's limit, and each has ended after it."""

    def __init__(self, limit_B: np.ndarray, beams: int):
        self.limit_R = torch.from_numpy(np.repeat(limit_B, beams)).long()

    def __call__(self, input_ids, scores):
        scores[:, (PAD, BEGIN, END)] = -torch.inf
        over_R = input_ids.shape[1] > self.limit_R  # BEGIN is one of them
        scores[over_R] = -torch.inf
        scores[over_R, END] = 0.0
        return scores


def beam(model, source_BS: np.ndarray, limit_B: np.ndarray, beams: int, length_penalty: float) -> np.ndarray:
    """Translations (B, at most the largest limit), PAD after each row's end."""
    source = torch.from_numpy(source_BS).long()
    out = model.generate(
        input_ids=source,
        attention_mask=source != PAD,
        num_beams=beams,
        length_penalty=length_penalty,
        max_new_tokens=int(limit_B.max()) + 1,
        do_sample=False,
        logits_processor=transformers.LogitsProcessorList([EndsAt(limit_B, beams)]),
    )[:, 1 : limit_B.max() + 1].numpy()
    return np.where(np.arange(out.shape[1]) < limit_B[:, None], out, PAD)
