"""IWSLT14 German → English, the "small" Transformer of the repulsive-attention experiments (fairseq's transformer_iwslt_de_en).

    python main.py --config=configs/papers/iwslt14.py --workdir=runs/iwslt14 \
        --config.data.train_source=train.de --config.data.train_target=train.en \
        --config.data.validation_source=valid.de --config.data.validation_target=valid.en \
        --config.data.test_source=test.de --config.data.test_target=test.en

With iwslt14.py:variant=repulsive, heads repel each other as in those experiments (SVGD, alpha and stepsize 0.01).

Settings: 6 + 6 layers, width 512, 4 heads, feed-forward 1024, post-norm; Adam (0.9, 0.98), eps 1e-8, decoupled weight decay
1e-4, inverse square root from 5e-4 after 4,000 steps; dropout 0.3, label smoothing 0.1, 4,096 tokens a batch, 10,000 joint
subwords. The published scripts name no number of steps, 50 epochs is ours; no score of theirs is verified, and we have not run
it. Files: your own copy of the corpus, raw text.
"""

from configs import common


def get_config(arg: str | None = None):
    arg = common.split_arg(arg, variant="standard", particles="")
    config = common.defaults(
        task="translation", data="parallel_text", model="transformer", variant=arg.variant, particles=arg.particles
    )
    config.model.update(layers=6, width=512, heads=4, feed_forward=1024, norm="post")
    if config.particles.method in ("svgd", "spos"):
        config.particles.stepsize = 0.01  # with alpha = 0.01, as published
    config.task.update(batch_tokens=4096, subwords=10_000)
    config.optimizer.update(schedule="inverse_sqrt", warmup="4000 steps", eps=1e-8, weight_decay=1e-4, clip=0.0)
    config.hypers.update(learning_rate=5e-4, dropout=0.3, attention_dropout=0.0, label_smoothing=0.1)
    config.run.update(duration="50 epochs", evaluate="1 epoch", checkpoint="1 epoch")
    return config
