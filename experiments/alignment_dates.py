"""Do norms align better than weights, where the right links are known? Dates, layer by layer, by input and by output.

Kobayashi et al. 2020, "Attention is not only a weight", on German-English: norms 5 to 6 points of error below weights in the best
layer, and the layer chosen by its mean norm. Here characters of dates, whose links are known; the error at random is 90.4 %, on the
diagonal 85.6 %. AWI aligns the step that is fed with a character, AWO the one that predicts it. Error rates in percent; of
post-norm and pre-norm models, an implicit kernel, heads that repel each other, and, for control, a model that has learned nothing.

    python -m experiments.launch --experiment=experiments/alignment_dates.py --workdir=runs/alignment_dates --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.aligned import columns, look

ABLATION = Ablation(
    config="configs/translation.py:data=dates",
    cells=[{}, {"model.norm": "pre"}, {"variant": "implicit_kernel"}, {"particles": "svgd"}, {"run.duration": "1 steps"}],
    metric="test.exact_match",
    also=columns(range(2)),
    look=look,
    tiny={"model.layers": 2, "run.duration": "4 steps", "run.evaluate": "2 steps"},
    pictures=("decoder_0_cross_attention.png", "decoder_1_cross_attention.png"),
)
