"""WMT14 English → German, base and big, of "Attention is all you need" (Vaswani et al. 2017, section 5 and table 3).

    python main.py --config=configs/papers/wmt14.py --workdir=runs/wmt14 \
        --config.data.train_source=train.en.gz --config.data.train_target=train.de.gz \
        --config.data.validation_source=newstest2013.en --config.data.validation_target=newstest2013.de \
        --config.data.test_source=newstest2014.en --config.data.test_target=newstest2014.de

Settings of the paper: base 6 + 6 layers, width 512, 8 heads, feed-forward 2048, 100,000 steps, dropout 0.1; big (wmt14.py:size=big)
width 1024, 16 heads, feed-forward 4096, 300,000 steps, dropout 0.3. Adam (0.9, 0.98), eps 1e-9, the paper's schedule with 4,000
steps of warm-up, label smoothing 0.1, about 25,000 source and 25,000 target tokens a batch, a joint vocabulary of 37,000 subwords.
The paper reports 27.3 (base) and 28.4 (big) tokenised BLEU on newstest2014, by beam search over averaged checkpoints; sacreBLEU
of greedy decoding from the best checkpoint is a different and lower number, which we have not run (the paper: 12 hours and 3.5 days
on 8 P100 GPUs). Accumulate on small devices:
--config.optimizer.accumulate=8. Files: your own copy of the corpus, raw text.
"""

from attention_variants.models import transformer
from configs import common


def get_config(arg: str | None = None):
    arg = common.split_arg(arg, size="base", variant="standard", particles="")
    config = common.defaults(
        task="translation", data="parallel_text", model="transformer", variant=arg.variant, particles=arg.particles
    )
    config.model.update(transformer.size(arg.size))
    if config.particles.method in ("svgd", "spos"):
        config.particles.stepsize = 0.1  # with alpha = 0.01, as An et al. 2020 have it for this model
    config.task.update(batch_tokens=25_000, decode_tokens=25_000, subwords=37_000, max_length=256)
    config.optimizer.update(schedule="transformer", warmup="4000 steps", eps=1e-9, clip=0.0)
    config.hypers.update(learning_rate=1.0, dropout=0.1, attention_dropout=0.0, label_smoothing=0.1)
    config.run.update(duration="100000 steps", evaluate="5000 steps", checkpoint="1000 steps")
    if arg.size == "big":
        config.hypers.dropout = 0.3
        config.run.duration = "300000 steps"
    return config
