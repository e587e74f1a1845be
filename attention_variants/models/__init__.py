"""Linen modules that receive a variant and never import a particular one.

Letters: B batch · Q, S, T query, source and target length · D model width · H heads · K head size.
Of the linear layer: R rows · D inputs · F outputs.
"""

from attention_variants import modules

CONTRACT = ("Config", "build")


def load(name: str):
    """The module of the model `name`; InputError (with the nearest name) where there is none."""
    return modules.load(__name__, name, CONTRACT)
