"""What is wrong with the folder of a pre-trained model is told in one sentence."""

import json

import numpy as np
import pytest
from cases.pretrained import case, written

from attention_variants.errors import InputError
from attention_variants.models import pretrained


def lacking(folder, name):
    (folder / name).unlink()


def configured(folder, **values):
    config = case().config | values
    (folder / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def pickled(folder):
    lacking(folder, "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"?")


def pickled_by_a_stranger(folder):
    pickled(folder)
    configured(folder, architectures=["BertModel; import os"])


def of_tensors(folder, drop=(), **add):
    written(folder, case().config, {name: x for name, x in (case().tensors | add).items() if name not in drop})


KEY = "encoder.layer.1.attention.self.key.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: lacking(f, "config.json"), r"no config.json in .*model; expected a folder as Hugging Face's save_pretrained"),
        (lambda f: (f / "config.json").write_text("{"), r"cannot read .*config.json: "),
        (lambda f: (f / "config.json").write_text("[]"), r"config.json holds list; expected a JSON object"),
        (lambda f: lacking(f, "model.safetensors"), r"no model.safetensors in .*model; expected it$"),
        (lambda f: (f / "model.safetensors").write_bytes(b"?"), r"cannot read .*model.safetensors: "),
        (
            pickled,
            r"in place of pytorch_model.bin, which python -c \"from transformers import BertModel; BertModel.from_pretrained"
            r"\('.*'\).save_pretrained\('.*', safe_serialization=True\)\" converts$",
        ),
        (pickled_by_a_stranger, r"which python -c \"from transformers import AutoModel; AutoModel.from_pretrained\("),
        (
            lambda f: configured(f, model_type="robert"),
            r"config.json: unknown model_type 'robert'; did you mean 'roberta'\? choose from bert, distilbert, marian, roberta$",
        ),
        (lambda f: configured(f, model_type=None), r"config.json: no 'model_type'; expected it"),
        (lambda f: configured(f, hidden_size="36"), r"config.json: a value is of another type than it should be: "),
        (
            lambda f: configured(f, hidden_size=None, hidden_sise=36),
            r"config.json: no 'hidden_size'; expected it, as the model is made of it; the nearest is 'hidden_sise'",
        ),
        (
            lambda f: configured(f, hidden_act="gelo"),
            r"config.json: unknown activation 'gelo'; did you mean 'gelu'\? choose from gelu, ",
        ),
        (
            lambda f: configured(f, num_attention_heads=5),
            r"config.json: model.heads is 5, which does not divide .*width 36; the nearest that does is 4",
        ),
        (
            lambda f: configured(f, position_embedding_type="relative_key"),
            r"config.json: position_embedding_type is 'relative_key'; expected 'absolute', as nothing else is supported",
        ),
        (
            lambda f: of_tensors(f, [KEY]),
            rf"model has no tensor '{KEY}'; expected it, as config.json describes a bert with it; the nearest is 'encoder.*\.key\.",
        ),
        (
            lambda f: of_tensors(f, **{KEY: np.zeros((36, 35), np.float32)}),
            rf"model has the tensor '{KEY}' with shape \(36, 35\); expected \(36, 36\), as config.json says",
        ),
        (
            lambda f: configured(f, intermediate_size=71),
            r"'encoder.layer.0.intermediate.dense.weight' with shape \(70, 36\); expected \(71, 36\)|"
            r"'encoder.layer.0.intermediate.dense.bias' with shape \(70,\); expected \(71,\)",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(tmp_path, spoil, message):
    folder = written(tmp_path / "model", case().config, case().tensors)
    spoil(folder)
    with pytest.raises(InputError, match=message) as error:
        pretrained.load(folder)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_told_with_the_nearest(tmp_path):
    (tmp_path / "bert-base").mkdir()
    message = r"no such folder: .*bert-bose; expected one with config.json and model.safetensors; the nearest is 'bert-base'$"
    with pytest.raises(InputError, match=message):
        pretrained.load(tmp_path / "bert-bose")
    with pytest.raises(InputError, match=r"no such folder: .*bert; expected one with config.json and model.safetensors$"):
        pretrained.load(tmp_path / "not" / "there" / "bert")
