r"""Regression and classification of tables, by kernel smoothing or by a Transformer over rows, with any attention variant.

    python main.py --config=configs/regression.py --workdir=runs/textbook
    python main.py --config=configs/regression.py:data=time_series,variant=kernel_pooling --workdir=runs/mcycle
    python main.py --config=configs/regression.py:data=bbq,protocol=authors --workdir=runs/co2
    python main.py --config=configs/regression.py:data=csv_file --workdir=runs/prices \
        --config.data.path=table.csv --config.data.target=price

Pieces of the config string (after the colon): data=textbook|time_series|uci|bbq|csv_file, set= (of time_series, uci and bbq: its
name), variant=NAME, model=row_transformer|row_transformer_authors|kernel_smoother (by default what suits variant and protocol),
rule=silverman|abramson|nearest (widths by a rule, with nothing of them learned), particles=svgd|spos|energy|outputs (heads of a
row_transformer repel each other), protocol=clean|authors, and tiny, for a look in seconds. Every other setting is a flag:
--config.variant.kernel=epanechnikov.
"""

from attention_variants.errors import InputError
from configs import common

SETS = {"time_series": "series", "uci": "set", "bbq": "set"}


def get_config(arg: str | None = None):
    arg = common.split_arg(
        arg, data="textbook", set="", variant="kernel_pooling", model="", rule="", protocol="clean", tiny=False, particles=""
    )
    if arg.set and arg.data not in SETS:
        raise InputError(f"set= is a set of data={', '.join(SETS)}; data={arg.data} has none to choose")
    if arg.protocol not in ("clean", "authors"):
        raise InputError(f"protocol is {arg.protocol!r}; expected clean or authors")
    authors = arg.protocol == "authors"
    rows = "row_transformer_authors" if authors else "row_transformer"
    model = arg.model or ("kernel_smoother" if arg.variant == "kernel_pooling" else rows)
    config = common.defaults(task="regression", data=arg.data, model=model, variant=arg.variant, particles=arg.particles)
    if arg.set:
        config.data[SETS[arg.data]] = arg.set
    config.parallel.devices = 1  # a table is one sequence
    config.task.protocol = arg.protocol
    config.run.update(duration="1000 steps", evaluate="2 percent", checkpoint="10 percent")
    config.optimizer.update(schedule="constant", warmup="0", b2=0.999, eps=1e-8)
    config.hypers.learning_rate = 1e-2
    if model == "kernel_smoother":
        config.run.update(duration="300 steps", evaluate="10 percent")
        config.hypers.learning_rate = 5e-2
        if arg.variant == "kernel_pooling":
            config.variant.update(width=0.3, learn_width=True)
    if arg.rule:
        if "rule" not in config.variant:
            raise InputError(
                f"rule={arg.rule} is of kernels, and variant={arg.variant} has none; expected variant=kernel_pooling or rbf"
            )
        config.variant.update(rule=arg.rule, width=1.0, learn_width=False)
    if authors:
        config.run.evaluate = "100 percent"  # the lowest error of all steps is kept by the step itself
        config.optimizer.clip = 1000.0
    if arg.tiny:
        config.run.update(duration="20 steps", evaluate="10 steps")
    return config
