"""Pre-trained models in folders: those that transformers 5.23 saved with random parameters, and how others are made of them.

`expected.npz` in `tests/golden/bert_random` and `tests/golden/marian_random` has what `BertModel` and `MarianMTModel` gave: hidden
states, logits and weights of attention.
"""

import functools
import io
import json
import pathlib
import types

import jax
import numpy as np
import safetensors.numpy
import sentencepiece

from attention_variants.models import pretrained

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
BERT, MARIAN = GOLDEN / "bert_random", GOLDEN / "marian_random"
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-4)


@functools.cache
def case(folder=BERT):
    """A golden folder: its model, what was expected of it, its config and its tensors."""
    model, params, kind = pretrained.load(folder)
    config = json.loads((folder / "config.json").read_text())
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    return types.SimpleNamespace(
        model=model, params=params, kind=kind, expected=np.load(folder / "expected.npz"), config=config, tensors=tensors
    )


def written(folder: pathlib.Path, config: dict, tensors: dict) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, folder / "model.safetensors")
    return folder


def looked_into(model, params, *tokens, **more):
    """What comes out, what each module put out, and the traces of attention."""
    sown = dict(mutable=["trace", "intermediates"], capture_intermediates=True)
    out, variables = jax.jit(functools.partial(model.apply, **sown, **more))({"params": params}, *tokens)
    outputs = {
        name: of["__call__"][0] for name, of in variables["intermediates"].items() if isinstance(of, dict) and "__call__" in of
    }
    return out, outputs, variables["trace"]


def run(folder, token_BS=None):
    model, params, _ = pretrained.load(folder)
    return jax.jit(model.apply)({"params": params}, case().expected["input_ids"] if token_BS is None else token_BS)


def with_sentencepiece(folder: pathlib.Path, lines: list[str]) -> pathlib.Path:
    """Both sides, the target's of the lines backwards, whose ids are not the vocabulary's, which has no "▁the"."""
    pieces = set()
    for side in ("source", "target"):
        file, read = io.BytesIO(), lines if side == "source" else [line[::-1] for line in lines]
        options = dict(vocab_size=41, model_type="bpe", minloglevel=2)
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(read), model_writer=file, **options)
        (folder / f"{side}.spm").write_bytes(file.getvalue())
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.spm"))
        pieces |= {model.id_to_piece(i) for i in range(len(model))}
    names = ["</s>", "<unk>", *sorted(pieces - {"<s>", "</s>", "<unk>", "▁the"}), ">>fra<<", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(names)}))
    return folder
