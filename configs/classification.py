r"""Classification of sentences by a Transformer encoder with any attention variant.

    python main.py --config=configs/classification.py --workdir=runs/listops
    python main.py --config=configs/classification.py:data=sentences,set=trec --workdir=runs/trec
    python main.py --config=configs/classification.py:data=tsv_file --workdir=runs/mine \
        --config.data.train=train.tsv --config.data.test=test.tsv

Expected, seed 0, on the test split, beside the best of classifiers that hardly read: ListOps of up to 200 tokens, accuracy 0.49
beside 0.306; TREC 0.884 beside 0.826; SUBJ, fold 0, 0.921 beside 0.919, all of them from random embeddings. They took 11, 2 and 4
minutes of CPU time; ListOps took 5 to 7 minutes on two cores.

Pieces of the config string (after the colon): data=listops|sentences|tsv_file, set=mr|subj|mpqa|trec|sst1|sst2 (of sentences),
variant=NAME, particles=svgd|spos|energy|outputs (heads repel each other; variant=repulsive: standard with svgd), and tiny,
which shrinks everything for a look in seconds. Every other setting is a flag: --config.model.pooling=cls,
--config.task.vectors=glove.6B.100d.txt --config.model.width=100, --config.hypers.dropout=0.3; folds in one program want
--config.task.max_padding=1.0.
"""

from attention_variants.errors import InputError
from configs import common


def get_config(arg: str | None = None):
    arg = common.split_arg(arg, data="listops", set="", variant="standard", tiny=False, particles="")
    if arg.set and arg.data != "sentences":
        raise InputError(f"set= is a set of data=sentences; data={arg.data} has none to choose")
    config = common.defaults(task="classification", data=arg.data, model="classifier", variant=arg.variant, particles=arg.particles)
    config.optimizer.update(schedule="cosine", warmup="10 percent")
    config.model.update(norm="pre", positions="rotary")
    config.hypers.learning_rate = 2e-3

    if arg.data == "listops":
        config.model.update(layers=3, width=64, heads=4, feed_forward=128)
        config.task.update(batch_tokens=4096, max_padding=0.2)
        config.run.update(duration="10 epochs", evaluate="10 percent")
        config.hypers.update(dropout=0.0)
    else:
        config.model.update(layers=2, width=128, heads=4, feed_forward=256)
        config.task.update(batch_tokens=512, max_padding=0.3, least=2)  # rare words teach what to think of unknown ones
        config.run.update(duration="8 epochs" if arg.set in ("", "trec") else "5 epochs", evaluate="20 percent")
        config.hypers.update(dropout=0.5)
    if arg.set:
        config.data.set = arg.set
    if arg.data == "tsv_file":
        config.task.tokens = "subwords"  # whatever separates its words

    if arg.tiny:
        config.model.update(layers=1, width=16, heads=2, feed_forward=32)
        config.task.update(subwords=500, batch_tokens=512)
        config.run.duration = "40 steps"
        if arg.data == "listops":
            config.data.update(train=400, validation=50, test=50, max_length=50)
    return config
