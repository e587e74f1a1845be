"""Translation with the Transformer ("Attention is all you need", Vaswani et al. 2017) and any attention variant.

    python main.py --config=configs/translation.py --workdir=runs/dates
    python main.py --config=configs/translation.py:data=multi30k --workdir=runs/multi30k
    python main.py --config=configs/translation.py:data=multi30k,source=en,target=fr --workdir=runs/en-fr
    python main.py --config=configs/translation.py:data=parallel_text,size=base --workdir=runs/mine \
        --config.data.train_source=train.de --config.data.train_target=train.en \
        --config.data.validation_source=valid.de --config.data.validation_target=valid.en

Expected on 2 CPU cores: dates, exact match 0.999 on the test split in 1.6 minutes; Multi30k De→En, 38.8 sacreBLEU (cased, 13a,
greedy, seed 0; 39.7 with four beams) on test_2016_flickr in 21 minutes. Where others use the cores too, up to twice as long.

Pieces of the config string (after the colon): data=dates|multi30k|parallel_text, variant=NAME, size=tiny|small|base|big,
particles=svgd|spos|energy|outputs (heads repel each other; variant=repulsive: standard attention with svgd), source= and target=
(multi30k: de, en, fr), and tiny, which shrinks everything for a look in seconds. Every other setting is a flag:
--config.hypers.dropout=0.2, --config.model.norm=pre, --config.run.duration="30 epochs".
"""

from attention_variants.errors import InputError
from attention_variants.models import transformer
from configs import common


def get_config(arg: str | None = None):
    arg = common.split_arg(arg, data="dates", variant="standard", size="", source="", target="", tiny=False, particles="")
    if arg.data != "multi30k" and (arg.source or arg.target):
        raise InputError(f"source= and target= are languages of data=multi30k; data={arg.data} has none to choose")
    if arg.size and arg.tiny:
        raise InputError(f"size={arg.size} and tiny are two sizes; expected one of them")
    config = common.defaults(task="translation", data=arg.data, model="transformer", variant=arg.variant, particles=arg.particles)
    config.optimizer.update(schedule="cosine", warmup="10 percent")
    config.hypers.learning_rate = 2e-3
    if config.particles.method in ("svgd", "spos"):
        config.particles.stepsize = 0.01  # with alpha = 0.01, as An et al. 2020 have it for IWSLT14

    if arg.data == "dates":
        config.model.update(transformer.size(arg.size or "tiny"))
        config.task.update(subwords=0, batch_tokens=2048, packed=True)  # characters: the heatmaps show which digit looks where
        config.run.update(duration="6 epochs", evaluate="25 percent")
        config.hypers.update(dropout=0.0, attention_dropout=0.0, label_smoothing=0.0)  # clean pairs, and many: no need
    elif arg.data == "multi30k":
        config.model.update(transformer.size(arg.size or "small"))
        config.model.norm = "pre"  # at this learning rate post-norm is far behind after as many steps
        config.data.update(source=arg.source or "de", target=arg.target or "en")
        config.task.update(subwords=4000, batch_tokens=1280, packed=True, max_padding=0.03)
        config.run.update(duration="12 epochs", evaluate="25 percent")
        config.hypers.update(dropout=0.2, attention_dropout=0.0)
    else:
        config.model.update(transformer.size(arg.size or "small"))
        config.model.norm = "pre"

    if arg.tiny:
        config.model.update(layers=1, width=16, heads=2, feed_forward=32)
        config.task.update(subwords=min(config.task.subwords, 500), batch_tokens=512)
        config.run.duration = "40 steps"
        if arg.data == "dates":
            config.data.update(train=400, validation=20, test=20)
    return config
