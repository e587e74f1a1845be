"""Train, evaluate and use attention variants.

Train (the same --workdir again resumes):
  python main.py --config=configs/translation.py --workdir=runs/dates
  python main.py --config=configs/translation.py:data=multi30k --workdir=runs/multi30k --config.hypers.dropout=0.2
Score a workdir on a split:
  python main.py --mode=evaluate --workdir=runs/dates --split=test
Translate lines with a workdir's best checkpoint, by beam search:
  echo "3rd of March 1998" | python main.py --mode=predict --workdir=runs/dates --change=task.beams=4

--config comes before every --config.section.key=value. The first lines of a config file say what can be chosen in it, and
attention_variants/train/settings.py what every section means.
"""

from absl import app, flags
from ml_collections import config_flags

from attention_variants.train import cli

config_flags.DEFINE_config_file(
    "config", None, "Config file and its pieces, FILE.py:piece=value,…; for --mode=train. --config.section.key=value overrides."
)
flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, metrics, figures, results. Always needed.")
flags.DEFINE_enum("mode", "train", ["train", "evaluate", "predict"], "What to do with the workdir.")
flags.DEFINE_multi_string(
    "change", [], "Setting that --mode=evaluate or predict uses in place of the run's own, task.beams=4 say. May be repeated."
)
flags.DEFINE_string("split", None, "Split that --mode=evaluate scores: test by default, validation where there is none.")
flags.DEFINE_string("input", "-", "File with one sentence per line, for --mode=predict; - is standard input.")
flags.DEFINE_bool("multihost", False, "One run over many hosts: calls jax.distributed.initialize() before anything else.")

if __name__ == "__main__":
    app.run(cli.main, flags_parser=cli.parse)
