"""Do norms align words better than weights, English to French? By people's links of Hansards, by input and by output.

Kobayashi et al. 2020, "Attention is not only a weight", have German-English models of Europarl and gold of the same corpus. This
model, pre-norm and of a reduced size, has read captions of pictures (Multi30k), and the gold, 447 sentence pairs, is of the
Canadian parliament (Och and Ney 2000): most of its words are new to the model, so only the order of weights and norms is to be
compared, not the error itself. The error at random is 88.6 %, on the diagonal 53.8 %, of the best single links 0.4 %. For control
a model that has learned nothing. Error rates in percent; AWI aligns the step that is fed with a word, AWO the one that predicts it.

    python -m experiments.launch --experiment=experiments/alignment_en_fr.py --workdir=runs/alignment_en_fr --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.aligned import columns, look
from experiments.repelled import REDUCED

ABLATION = Ablation(
    config="configs/translation.py:data=multi30k,source=en,target=fr",
    cells=[{}, {"run.duration": "1 steps"}],
    settings=REDUCED,
    metric="test.bleu",
    also=columns(range(2)),
    look=look,
    tiny={"run.duration": "4 steps", "run.evaluate": "2 steps", "model.width": 24},
    pictures=("decoder_0_cross_attention.png", "decoder_1_cross_attention.png"),
)
