"""Particles that repel: SVGD and SPOS over the heads of a layer, as transformations of gradients; knows pytrees, no attention.

An, Lyu, Wang, Li, Hu, Tan, Zhang, Hu and Chen 2020, "Repulsive attention: rethinking multi-head attention as Bayesian inference":
the heads of a projection are particles of one posterior, whose gradients are replaced before they reach the optimiser. The loss is
of all heads together, so this is an interacting regulariser; nothing here claims posterior samples.
"""

from attention_variants.particles.heads import head_noise, repulsive_heads

__all__ = ["head_noise", "repulsive_heads"]
