"""BERT, RoBERTa and DistilBERT are those of Hugging Face, in numbers, and ours in everything else."""

import dataclasses
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax
import safetensors.numpy
from cases.pretrained import BERT, MARIAN, case, close, looked_into, run, written
from flax import traverse_util

from attention_variants.errors import InputError
from attention_variants.models import layers, pretrained, transformer
from attention_variants.models.heads import trace_weights
from attention_variants.particles import groups


def test_bert_is_that_of_hugging_face():
    c = case()
    out, outputs, trace = looked_into(c.model, c.params, c.expected["input_ids"])
    states = [outputs[name] for name in ("embedding_norm", "encoder_0", "encoder_1", "encoder_2")]
    close(np.stack(states), c.expected["hidden_states"])
    close(out, states[-1])
    for n, expected in enumerate(c.expected["attentions"]):
        close(trace_weights(trace[f"encoder_{n}"]["self_attention"]), expected)
        assert np.ptp(expected) > 0.05
    assert (c.kind, c.model.config.longest) == ("bert", 40)


@pytest.mark.parametrize("folder", [BERT, MARIAN], ids=lambda folder: folder.name)
def test_layers_have_the_paths_of_our_transformer(folder):
    """What reads parameters by path finds in them what it finds in our own; all of them are float32."""
    c = case(folder)
    config = transformer.Config(layers=c.model.config.layers, width=12, heads=3, feed_forward=5)
    token = jnp.ones((1, 3), jnp.int32)
    ours = jax.eval_shape(transformer.build(config, "standard", 7).init, jax.random.key(0), token, token)["params"]
    paths = lambda tree: {path for path in traverse_util.flatten_dict(tree, sep="/") if "_0/" in path or "_1/" in path}
    kept = {path for path in paths(ours) if folder == MARIAN or path.startswith("encoder")}
    assert paths(c.params) == kept
    assert {x.dtype for x in jax.tree.leaves(c.params)} == {jnp.dtype("float32")}
    assert {group.heads for group in groups.find(c.params)} == {3}


@pytest.mark.parametrize("prefix", ["bert.", "model."])
def test_prefixes_old_names_of_norms_and_heads_on_top_change_nothing(tmp_path, prefix):
    c, random = case(), np.random.default_rng(0)
    old = lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    tensors = {prefix + old(name): x for name, x in c.tensors.items() if not name.startswith("pooler")}
    tensors["cls.predictions.bias"] = random.normal(size=600).astype(np.float32)
    out = run(written(tmp_path, c.config, tensors))
    np.testing.assert_array_equal(out, run(BERT))


def roberta(folder: pathlib.Path, pad: int = 1) -> pathlib.Path:
    """The golden BERT as RoBERTa has it: its first position is row pad + 1 of the table."""
    c = case()
    positions = "embeddings.position_embeddings.weight"
    before = np.random.default_rng(0).normal(size=(pad + 1, 36)).astype(np.float32)
    tensors = c.tensors | {positions: np.concatenate([before, c.tensors[positions]])}
    config = c.config | dict(model_type="roberta", pad_token_id=pad, max_position_embeddings=40 + pad + 1)
    return written(folder, config, {f"roberta.{name}": x for name, x in tensors.items()})


def test_roberta_is_bert_with_positions_from_after_that_of_padding(tmp_path):
    folder = roberta(tmp_path)
    close(run(folder), case().expected["hidden_states"][-1])
    model, _, kind = pretrained.load(folder)
    assert (kind, model.config.longest) == ("roberta", 40)


def test_roberta_counts_tokens_and_not_places(tmp_path):
    """Padding in front changes nothing of RoBERTa, and much of BERT."""
    token_BS = case().expected["input_ids"]
    shifted = lambda pad: np.pad(token_BS, ((0, 0), (3, 0)), constant_values=pad)
    out = run(roberta(tmp_path), shifted(1))
    close(out[:, 3:], case().expected["hidden_states"][-1])
    assert np.abs(run(BERT, shifted(0))[:, 3:] - case().expected["hidden_states"][-1]).max() > 0.1


def test_distilbert_is_bert_whose_token_type_is_in_the_positions(tmp_path):
    c = case()
    theirs = {
        "encoder.layer": "transformer.layer",
        "attention.self.query": "attention.q_lin",
        "attention.self.key": "attention.k_lin",
        "attention.self.value": "attention.v_lin",
        "attention.output.dense": "attention.out_lin",
        "attention.output.LayerNorm": "sa_layer_norm",
        "intermediate.dense": "ffn.lin1",
        "output.dense": "ffn.lin2",
    }
    tensors = dict(c.tensors)
    types_ = tensors.pop("embeddings.token_type_embeddings.weight")
    tensors["embeddings.position_embeddings.weight"] = tensors["embeddings.position_embeddings.weight"] + types_[0]
    renamed = {}
    for name, x in tensors.items():
        for ours, other in theirs.items():
            name = name.replace(ours, other)
        if name.startswith("transformer"):
            name = name.replace(".output.LayerNorm", ".output_layer_norm")
        renamed[f"distilbert.{name}"] = x
    config = dict(model_type="distilbert", n_layers=3, dim=36, n_heads=3, hidden_dim=70, activation="gelu", pad_token_id=0)
    folder = written(tmp_path, config | dict(max_position_embeddings=40, vocab_size=600), renamed)
    close(run(folder), c.expected["hidden_states"][-1])
    assert pretrained.load(folder).kind == "distilbert"


def test_padding_is_not_seen():
    c = case()
    longer = np.pad(c.expected["input_ids"], ((0, 0), (0, 5)))
    close(run(BERT, longer)[:, :19], c.expected["hidden_states"][-1])


def test_token_types_are_looked_up(tmp_path):
    """All tokens of the second sentence is BERT with the table of types turned around."""
    c = case()
    name = "embeddings.token_type_embeddings.weight"
    expected = run(written(tmp_path, c.config, c.tensors | {name: c.tensors[name][::-1]}))
    token_BS = c.expected["input_ids"]
    out = c.model.apply({"params": c.params}, token_BS, type_BS=np.ones_like(token_BS))
    close(out, expected)
    assert np.abs(out - c.expected["hidden_states"][-1]).max() > 0.1


@pytest.mark.parametrize("folder", [BERT, MARIAN], ids=lambda folder: folder.name)
def test_tensors_may_lie_in_several_files(tmp_path, folder):
    c = case(folder)
    names = sorted(c.tensors)
    files = {name: f"model-0000{1 + n % 3}-of-00003.safetensors" for n, name in enumerate(names)}
    for file in set(files.values()):
        safetensors.numpy.save_file({name: c.tensors[name] for name in names if files[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (tmp_path / "config.json").write_text(json.dumps(c.config))
    jax.tree.map(np.testing.assert_array_equal, pretrained.load(tmp_path).params, c.params)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model-00002-of-00003.safetensors in .*; expected it$"):
        pretrained.load(tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_files_of_half_precision_become_float32(tmp_path, dtype):
    c = case()
    written(tmp_path, c.config, {})
    half = {name: jnp.asarray(x, dtype) for name, x in c.tensors.items()}
    safetensors.flax.save_file(half, tmp_path / "model.safetensors")
    _, params, _ = pretrained.load(tmp_path)
    wanted = jax.tree.map(lambda x: x.astype(dtype).astype("float32"), c.params)
    jax.tree.map(np.testing.assert_array_equal, params, wanted)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_the_computation_may_have_another_type_and_route():
    model, params, _ = pretrained.load(BERT, dtype="bfloat16", route="dense")
    out = model.apply({"params": params}, case().expected["input_ids"])
    assert (out.dtype, model.config.route) == (jnp.bfloat16, "dense")
    assert 1e-4 < np.abs(out - case().expected["hidden_states"][-1]).max() < 0.2


def test_norms_have_the_epsilon_of_the_config(tmp_path):
    """One that is large enough to be seen, in that of the embeddings."""
    c = case()
    token_BS = c.expected["input_ids"]
    model, params, _ = pretrained.load(written(tmp_path, c.config | {"layer_norm_eps": 0.5}, c.tensors))
    table = lambda name: c.tensors[f"embeddings.{name}"]
    x = (
        table("word_embeddings.weight")[token_BS]
        + table("position_embeddings.weight")[:19]
        + table("token_type_embeddings.weight")[0]
    )
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.5)
    _, outputs, _ = looked_into(model, params, token_BS)
    close(outputs["embedding_norm"], normal * table("LayerNorm.weight") + table("LayerNorm.bias"))


def test_rows_longer_than_the_positions_are_refused():
    with pytest.raises(ValueError, match="rows have 41 tokens; expected at most 40, as there are positions"):
        case().model.apply({"params": case().params}, np.ones((1, 41), int))


def test_activations_are_those_of_their_names():
    """By their formulas: the error function, and the tanh that is near it."""
    x = np.linspace(-4, 4, 101)
    exact = x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    nearly = x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    sigmoid = x / (1 + np.exp(-x))
    expected = {"relu": np.maximum(x, 0), "gelu": exact, "silu": sigmoid, "swish": sigmoid, "tanh": np.tanh(x)}
    expected |= dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), nearly)
    assert expected.keys() == layers.ACTIVATIONS.keys()
    for name, wanted in expected.items():
        np.testing.assert_allclose(layers.activation(name)(jnp.asarray(x, jnp.float32)), wanted, atol=1e-6)
    assert np.abs(exact - nearly).max() > 1e-4


def test_our_own_configs_have_no_new_fields():
    """Results are found by what a config's fields hold; of those of before nothing may change."""
    fields = ["layers", "width", "heads", "feed_forward", "key_size", "norm", "positions", "dtype", "route", "remat"]
    assert [field.name for field in dataclasses.fields(transformer.Config)] == fields
    assert (transformer.Config.activation, transformer.Config.epsilon) == ("relu", 1e-5)
