"""Nadaraya-Watson kernel pooling: the inputs themselves are queries and keys (Nadaraya 1964; Watson 1964).

    out_i = Σ_j K(‖x_i − x_j‖ / h) v_j / Σ_j K(‖x_i − x_j‖ / h)

Attention as it began: a weight is the kernel alone, of the distance of the inputs, the whole of which every head sees.
"""

import dataclasses

import flax.linen as nn

from attention_variants.ops.kernels import Kernel
from attention_variants.variants.rbf import Width, score


@dataclasses.dataclass(frozen=True)
class Config(Width):
    """Kernel and width, see `Width`, in the units of the inputs. `project`: queries and keys are learned projections after all."""

    project: bool = False


class Layer(nn.Module):
    """Builds the score; its parameter is the width, where it is learned."""

    config: Config
    heads: int
    size: int

    @nn.compact
    def __call__(self, q_BQHK, k_BSHK, mask, row_B=None) -> Kernel:
        del q_BQHK, row_B
        return score(self, mask, unit=1.0, in_cache=k_BSHK is None)
