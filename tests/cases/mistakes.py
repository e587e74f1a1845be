"""What a person may get wrong on the command line of main.py, and a word of the sentence that says so."""

CONFIG = "--config=configs/translation.py:tiny"
PARALLEL = "--config=configs/translation.py:data=parallel_text,tiny"
TEXTS = {
    "good": b"one\ntwo\nthree\n",
    "four": b"1\n2\n3\n4\n",
    "empty": b"",
    "latin1": b"one\ntw\xf6\nthree\n",
    "hole": b"one\n\nthree\n",
    "table": b"rooms,price\n1,10\ntwo,20\n3,30\n",
    "same": b"rooms,price\n1,10\n2,10\n3,10\n",
    "gzip": b"\x1f\x8b\x08\x00broken",
    "labelled": b"text\tlabel\n" + b"a film\tgood\nno film\tbad\n" * 9,
    "neutral": b"text\tlabel\na film\tgood\nfilm\tneutral\n",
    "twice": b"text\tlabel\ttext\na film\tgood\tno film\n",
    "ragged": b"text\tlabel\na film\tgood\nno film bad\n",
    "vectors": b"a 1 2 3\nfilm 1 2 3\nno 1 2\n",
}


def parallel(source: str, target: str = "good", validation: str = "good") -> list[str]:
    files = {"train_source": source, "train_target": target, "validation_source": validation, "validation_target": "good"}
    return [PARALLEL, *(f"--config.data.{name}={{texts}}/{file}" for name, file in files.items())]


def table(file: str, target: str) -> list[str]:
    flags = [f"--config.data.path={{texts}}/{file}", f"--config.data.target={target}", "--workdir={new}"]
    return ["--config=configs/regression.py:data=csv_file", *flags]


def labelled(train: str, *more: str) -> list[str]:
    flags = [f"--config.data.train={{texts}}/{train}", "--config.task.tokens=words", *more, "--workdir={new}"]
    return ["--config=configs/classification.py:data=tsv_file,tiny", *flags]


# What is wrong: (flags, where {new} is a workdir that is not there yet; a word of the sentence; standard input).
CASES = {
    "no workdir": ([CONFIG], "--workdir is missing"),
    "no config": (["--workdir={new}"], "--config is missing"),
    "unknown flag": ([CONFIG, "--wrkdir={new}"], "workdir"),
    "unknown flag with a dot": ([CONFIG, "--confg.run.seed=3", "--workdir={new}"], "unknown flag 'confg'; did you mean 'config'?"),
    "name of a section": ([CONFIG, "--config.data.name=multi30k", "--workdir={new}"], "--config.data.name cannot be changed"),
    "comma for the colon": (["--config=configs/translation.py,tiny", "--workdir={new}"], "expected configs/translation.py:tiny"),
    "unknown mode": ([CONFIG, "--mode=tran", "--workdir={new}"], "mode"),
    "argument that is no flag": ([CONFIG, "train", "--workdir={new}"], "unexpected argument 'train'"),
    "config file that is not there": (
        ["--config=configs/transaltion.py", "--workdir={new}"],
        "cannot load the config file 'configs/transaltion.py'; expected configs/translation.py",
    ),
    "config file that is not there, with pieces": (
        ["--config=configs/transaltion.py:tiny", "--workdir={new}"],
        "cannot load the config file 'configs/transaltion.py'; expected configs/translation.py",
    ),
    "config of a run that has its own": ([CONFIG, "--mode=evaluate", "--workdir={new}"], "expected --change=section.key=value"),
    "override without a config": (
        ["--mode=evaluate", "--config.task.beams=4", "--workdir={new}"],
        "--config.task.beams has no --config=FILE.py before it; expected that, or --change=task.beams=… for evaluate and predict",
    ),
    "unknown piece": (
        ["--config=configs/translation.py:tny", "--workdir={new}"],
        "unknown piece of the config string 'tny'; did you mean 'tiny'?",
    ),
    "unknown variant": (
        ["--config=configs/translation.py:variant=standrd", "--workdir={new}"],
        "unknown variant 'standrd'; did you mean 'standard'?",
    ),
    "p below 1": (
        ["--config=configs/regression.py:variant=rbf", "--config.variant.p=0.5", "--workdir={new}"],
        "variant.p is 0.5; expected a number from 1 on",
    ),
    "a width of zero": (
        ["--config=configs/regression.py", "--config.variant.width=0.0", "--workdir={new}"],
        "variant.width is 0.0; expected a number above 0",
    ),
    "a rule where the future is hidden": (
        ["--config=configs/translation.py:tiny,variant=rbf", "--config.variant.rule=silverman", "--workdir={new}"],
        "variant.rule is 'silverman', which reads all keys",
    ),
    "pairs for a table": (
        ["--config=configs/regression.py:data=dates", "--workdir={new}"],
        "unknown data 'dates'; choose from bbq, csv_file, textbook, time_series, uci",
    ),
    "an unknown set": (
        ["--config=configs/regression.py:data=uci,set=concret", "--workdir={new}"],
        "unknown value of config.data.set 'concret'; did you mean 'concrete'",
    ),
    "a column that is not there": (table("table", "prize"), "'prize'; did you mean 'price'?"),
    "a cell that is no number": (table("table", "price"), "line 3, column 'rooms', is 'two'; expected a number"),
    "a target that never changes": (table("same", "price"), "is the same in all 3 rows"),
    "an unknown set of sentences": (
        ["--config=configs/classification.py:data=sentences,set=tre", "--workdir={new}"],
        "unknown value of config.data.set 'tre'; did you mean 'trec'",
    ),
    "a line with too few fields": (labelled("ragged"), "ragged, line 3, has 1 fields; expected 2"),
    "two columns of a name": (labelled("twice"), "twice has 2 columns 'text'; expected one"),
    "sampled kernels where rows hold several": (
        [CONFIG + ",variant=implicit_kernel", "--config.variant.mode=sampled", "--config.task.packed=True", "--workdir={new}"],
        "reads a whole sequence, where rows hold several (task.packed); expected 'direct', or task.packed=False",
    ),
    "a label that training has not": (
        labelled("labelled", "--config.data.validation={texts}/neutral"),
        "the label 'neutral' of the validation sentence 'film' is that of no training sentence",
    ),
    "vectors of two widths": (
        labelled("labelled", "--config.task.vectors={texts}/vectors"),
        "vectors, line 3, has 2 numbers; expected 3, as on line 1",
    ),
    "unknown size": (["--config=configs/translation.py:size=tny", "--workdir={new}"], "unknown size 'tny'; did you mean 'tiny'?"),
    "unknown data": (
        ["--config=configs/translation.py:data=multi30", "--workdir={new}"],
        "unknown data 'multi30'; did you mean 'multi30k'?",
    ),
    "unknown key": (
        [CONFIG, "--config.model.layrs=3", "--workdir={new}"],
        "'layrs'; did you mean 'layers'?",
    ),
    "unknown section": (
        [CONFIG, "--config.modl.layers=3", "--workdir={new}"],
        "'modl'; did you mean 'model'?",
    ),
    "key below a key": ([CONFIG, "--config.model.layers.x=3", "--workdir={new}"], "--config.model.layers.x"),
    "section set to a value": ([CONFIG, "--config.model=base", "--workdir={new}"], "model"),
    "unknown value": ([CONFIG, "--config.optimizer.schedule=cosin", "--workdir={new}"], "'cosin'; did you mean 'cosine'?"),
    "unknown route": ([CONFIG, "--config.model.route=densee", "--workdir={new}"], "'densee'; did you mean 'dense'?"),
    "route that takes no dropout": (
        [CONFIG, "--config.model.route=fused", "--config.hypers.attention_dropout=0.1", "--workdir={new}"],
        "route='fused' cannot take this: fused kernels have no dropout",
    ),
    "route that takes no bias": (
        [CONFIG, "--config.model.route=fused", "--config.model.positions=alibi", "--workdir={new}"],
        "route='fused' cannot take this: fused kernels would write a bias out",
    ),
    "length penalty that is no number": (
        [CONFIG, "--config.task.length_penalty=nan", "--workdir={new}"],
        "task.length_penalty is nan",
    ),
    "word for a number": ([CONFIG, "--config.model.layers=many", "--workdir={new}"], "many"),
    "fraction for a whole number": ([CONFIG, "--config.run.seed=1.5", "--workdir={new}"], "1.5"),
    "duration that is none": ([CONFIG, "--config.run.evaluate=often", "--workdir={new}"], "run.evaluate is 'often'"),
    "rate out of range": ([CONFIG, "--config.hypers.dropout=1.5", "--workdir={new}"], "hypers.dropout is 1.5"),
    "heads that do not divide": (
        [CONFIG, "--config.model.heads=3", "--workdir={new}"],
        "model.heads is 3, which does not divide model.width 16; the nearest that does is 2",
    ),
    "too many devices": ([CONFIG, "--config.parallel.devices=9", "--workdir={new}"], "parallel.devices is 9"),
    "steps of several shapes in a dispatch": (
        [CONFIG, "--config.task.packed=False", "--config.parallel.steps_per_dispatch=4", "--workdir={new}"],
        "parallel.steps_per_dispatch is 4 with batches of",
    ),
    "override before config": (["--config.model.layers=3", CONFIG, "--workdir={new}"], "config"),
    "no data file given": ([PARALLEL, "--workdir={new}"], "data.train_source is not set"),
    "missing data file": ([*parallel("nowhere"), "--workdir={new}"], "no such file"),
    "empty data file": ([*parallel("empty"), "--workdir={new}"], "empty is empty"),
    "broken gzip file": ([*parallel("gzip"), "--workdir={new}"], "cannot read"),
    "files of different length": ([*parallel("four"), "--workdir={new}"], "four has 4 lines and"),
    "line that is not UTF-8": ([*parallel("latin1"), "--workdir={new}"], "latin1, line 2, is not UTF-8"),
    "empty source line": ([*parallel("hole"), "--workdir={new}"], "hole, line 2, is empty"),
    "empty validation line": ([*parallel("good", validation="hole"), "--workdir={new}"], "hole, line 2, is empty"),
    "everything too long": ([CONFIG, "--config.task.max_length=3", "--workdir={new}"], "task.max_length"),
    "wrong checksum": (["--config=configs/translation.py:data=multi30k,tiny", "--workdir={new}"], "has the sha256"),
    "no network and no cache": (
        ["--config=configs/translation.py:data=multi30k,tiny,source=en,target=fr", "--workdir={new}"],
        "cannot download multi30k/train.en.gz",
    ),
    "workdir of another config": ([CONFIG, "--config.run.seed=9", "--workdir={trained}"], "run.seed: 0 there, 9 here"),
    "workdir that holds other things": ([CONFIG, "--workdir={texts}"], "is not a run of this project"),
    "workdir that is a file": ([CONFIG, "--workdir={texts}/good"], "is not a run of this project"),
    "workdir that cannot be made": ([CONFIG, "--workdir=/proc/run"], "the workdir /proc/run"),
    "workdir below a file": ([CONFIG, "--workdir={texts}/good/run"], "the workdir"),
    "evaluate without a run": (["--mode=evaluate", "--workdir={new}"], "is not a workdir"),
    "predict without a run": (["--mode=predict", "--workdir={new}"], "is not a workdir", b"1 May 1999\n"),
    "predict without checkpoints": (["--mode=predict", "--workdir={early}"], "has no checkpoint yet", b"1 May 1999\n"),
    "evaluate without checkpoints": (["--mode=evaluate", "--workdir={early}"], "has no checkpoint yet"),
    "only broken checkpoints": (["--mode=predict", "--workdir={broken}"], "none of the checkpoints", b"1 May 1999\n"),
    "resume from only broken checkpoints": ([CONFIG, "{trained_flags}", "--workdir={broken}"], "none of the checkpoints"),
    "change of no setting": (["--mode=evaluate", "--change=task.beam=4", "--workdir={trained}"], "did you mean 'beams'?"),
    "change of no section": (["--mode=evaluate", "--change=tsk.beams=4", "--workdir={trained}"], "did you mean 'task'?"),
    "change to a bad value": (["--mode=evaluate", "--change=task.beams=many", "--workdir={trained}"], "task.beams is 'many'"),
    "drawn from beams": (
        ["--mode=predict", "--change=task.beams=4", "--change=task.temperature=0.7", "--workdir={trained}"],
        "task.beams is 4 with a task.temperature",
    ),
    "change without a value": (["--mode=evaluate", "--change=task.beams", "--workdir={trained}"], "section.key=value"),
    "change of what was trained": (
        ["--mode=evaluate", "--change=model.width=32", "--workdir={trained}"],
        "--change=model.width=32 asks for other parameters than those that were trained",
    ),
    "change of a run to train": (
        [CONFIG, "--change=task.beams=4", "--workdir={new}"],
        "--change is for evaluate and predict; expected --config.task.beams=4",
    ),
    "unknown split": (["--mode=evaluate", "--split=tset", "--workdir={trained}"], "unknown split 'tset'; did you mean 'test'?"),
    "input that is not there": (["--mode=predict", "--input={texts}/nowhere", "--workdir={trained}"], "no such file"),
    "input of nothing": (["--mode=predict", "--workdir={trained}"], "standard input is empty"),
    "input that is not UTF-8": (
        ["--mode=predict", "--workdir={trained}"],
        "standard input, line 2, is not UTF-8",
        b"1 May 1999\n\xff\n",
    ),
    "input with an empty line": (
        ["--mode=predict", "--workdir={trained}"],
        "standard input, line 2, is empty",
        b"1 May 1999\n\n2 May 1999\n",
    ),
}
