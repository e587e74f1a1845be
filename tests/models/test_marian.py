"""Marian's models are those of Hugging Face, in numbers; they translate by our own search."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.pretrained import MARIAN, case, close, looked_into, written

from attention_variants.errors import InputError
from attention_variants.models import pretrained
from attention_variants.models.decoding import beam, greedy
from attention_variants.models.heads import trace_weights


def test_marian_is_that_of_hugging_face():
    """The second source is padded; what stands at its padding is nobody's business."""
    c = case(MARIAN)
    e = c.expected
    logits, outputs, trace = looked_into(c.model, c.params, e["input_ids"], e["decoder_input_ids"])
    close(logits, e["logits"])
    real_BS = e["attention_mask"].astype(bool)
    assert not real_BS.all()
    for n in range(2):
        close(outputs[f"encoder_{n}"][real_BS], e["encoder_hidden_states"][n + 1][real_BS])
        close(outputs[f"decoder_{n}"], e["decoder_hidden_states"][n + 1])
        close(trace_weights(trace[f"decoder_{n}"]["cross_attention"]), e["cross_attentions"][n])
    assert (c.kind, c.model.config.longest) == ("marian", 32)


def test_marian_decodes_step_by_step_as_at_once():
    c = case(MARIAN)
    source, before = c.expected["input_ids"], c.expected["decoder_input_ids"]
    bound = functools.partial(c.model.apply, {"params": c.params})
    encoded, mask = bound(source, method="encode")
    caches = bound(encoded, mask, 9, method="start")
    for at in range(before.shape[1]):
        logits, caches = bound(before[:, at, None], at, mask, caches, method="step")
        close(logits[:, 0], c.expected["logits"][:, at])


def test_marian_translates():
    """Each token is the most probable after those before, the first of which is `begin`; padding is never written."""
    c = case(MARIAN)
    length, source = 11, c.expected["input_ids"]
    bias = jnp.zeros((1, 300)).at[:, 299].set(100).at[:, 0].set(1.5)
    params = jax.tree.map(lambda x: 6 * x, c.params) | {"embedding": c.params["embedding"], "final_logits_bias": bias}
    out = np.asarray(greedy(c.model, params, source, length=length))
    before = np.concatenate([np.full((2, 1), 299), out], 1)[:, :-1]
    logits = np.array(c.model.apply({"params": params}, source, before))
    logits[..., 299] = -np.inf
    assert (out == 0).any(1).tolist() == [False, True]
    ended = np.cumsum(before == 0, 1) > 0
    np.testing.assert_array_equal(out, np.where(ended, 299, logits.argmax(-1)))
    np.testing.assert_array_equal(beam(c.model, params, source, length=length, beams=1), out)


def test_marians_logits_have_biases(tmp_path):
    c = case(MARIAN)
    bias = np.random.default_rng(0).normal(size=(1, 300)).astype(np.float32)
    folder = written(tmp_path, c.config, c.tensors | {"final_logits_bias": bias})
    e, (model, params, _) = c.expected, pretrained.load(folder)
    close(model.apply({"params": params}, e["input_ids"], e["decoder_input_ids"]), e["logits"] + bias)


@pytest.mark.parametrize("name", ["lm_head", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "shared"])
def test_marians_matrix_of_embeddings_has_many_names(tmp_path, name):
    c = case(MARIAN)
    tensors = dict(c.tensors)
    tensors[f"{name}.weight"] = tensors.pop("model.shared.weight")
    jax.tree.map(np.testing.assert_array_equal, pretrained.load(written(tmp_path, c.config, tensors)).params, c.params)


def test_marians_sides_may_differ(tmp_path):
    """Fewer layers, other heads and another width inside: heads of a decoder are those of the config's decoder."""
    c, random = case(MARIAN), np.random.default_rng(0)
    tensors = {name: x for name, x in c.tensors.items() if "decoder.layers.1" not in name}
    name = "model.decoder.layers.0.fc{}.{}".format
    shapes = {name(1, "weight"): (17, 24), name(1, "bias"): (17,), name(2, "weight"): (24, 17)}
    tensors |= {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    config = c.config | dict(decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=17)
    model, params, _ = pretrained.load(written(tmp_path, config, tensors))
    source, before = c.expected["input_ids"], c.expected["decoder_input_ids"]
    _, outputs, trace = looked_into(model, params, source, before)
    close(outputs["encoder_1"][0], c.expected["encoder_hidden_states"][-1][0])
    assert trace_weights(trace["decoder_0"]["cross_attention"]).shape == (2, 4, 7, 9)
    encoded, mask = model.apply({"params": params}, source, method="encode")
    assert len(model.apply({"params": params}, encoded, mask, 3, method="start")) == 1


def test_marians_sides_share_their_embeddings_or_are_refused(tmp_path):
    c = case(MARIAN)
    folder = written(tmp_path, c.config | {"share_encoder_decoder_embeddings": False}, c.tensors)
    with pytest.raises(InputError, match=r"config.json: share_encoder_decoder_embeddings is False; expected True, as nothing"):
        pretrained.load(folder)
