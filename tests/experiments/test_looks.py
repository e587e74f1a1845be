"""What ablations look for in finished runs is there, under the names that their tables want."""

import numpy as np
import pytest

from attention_variants.analysis import alignment, heads, norms, translators
from attention_variants.train import loop, runs
from configs import classification
from experiments import aligned, norms_trec


def test_alignments(trained):
    found = aligned.look(trained[0])
    assert set(aligned.columns(range(1))) <= {f"looks.{name}" for name in found}
    loaded = runs.Loaded(trained[0], print)
    gold, _ = alignment.known(loaded, None, None, 1, False)
    of = alignment.align(translators.of_run(loaded, characters=True), gold, "")
    for setting in ("AWI", "AWO"):
        for kind, short in aligned.SHORT.items():
            assert found[f"{short}_{setting}_0"] == pytest.approx(100 * of.counts(kind, setting)[0][0].error_rate)
        assert found[f"gain_{setting}_0"] == found[f"weights_{setting}_0"] - found[f"norms_{setting}_0"]
        assert found[f"norms_{setting}_chosen"] == found[f"norms_{setting}_0"], "there is one layer"


def test_agreement_and_mixing(tmp_path):
    config = classification.get_config("tiny")
    config.model.update(layers=2, norm="post")
    config.run.duration = "2 steps"
    loop.train(config, tmp_path / "run", quiet=True)
    found = norms_trec.look(tmp_path / "run")
    assert set(norms_trec.ABLATION.also) <= {f"looks.{name}" for name in found}
    loaded = runs.Loaded(tmp_path / "run", print)
    layers = heads.layers(loaded.task, loaded.params, loaded.model_state, loaded.place)
    for n, layer in enumerate(norms.read(loaded.params, layers, loaded.task.model.config)):
        for name, share_BQ in layer.norms.mixing_BQ.items():
            assert found[f"mixing_{name}_all_{n}"] == pytest.approx(np.asarray(share_BQ)[layer.real_BQ].mean())
