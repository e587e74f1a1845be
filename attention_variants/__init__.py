"""Attention variants in JAX and Flax: every attention weight is a similarity times a magnitude.

`MultiHeadAttention(num_heads, variant="standard")` takes the place of `flax.linen.MultiHeadDotProductAttention`;
`attend(q, k, v, score=…, mask=…)` is the function inside it; `variants.names()` says what there is to choose from.
`repulsive_heads(…)` and `head_noise(…)` are optax transformations with which the heads of any Flax model repel each other.
"""

from attention_variants import variants
from attention_variants.models.heads import MultiHeadAttention
from attention_variants.ops.attend import attend
from attention_variants.ops.masks import Mask
from attention_variants.particles import head_noise, repulsive_heads

__all__ = ["Mask", "MultiHeadAttention", "attend", "head_noise", "repulsive_heads", "variants"]
