"""The regression of Song et al. 2021 in eager PyTorch, from the formulas: a row Transformer with implicit-kernel attention."""

import math

import numpy as np
import torch
from torch import nn


class Attention(nn.Module):
    """κ² of `points` frequencies for each head, times the magnitude of queries and keys over 2 d^¼, dropped pair by pair."""

    def __init__(self, width: int, heads: int, points: int, p: float, rate: float):
        super().__init__()
        self.heads, self.size, self.p, self.rate = heads, width // heads, p, rate
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.w = nn.ParameterList(torch.empty(self.size, heads, points) for _ in range(2))

    def features(self, x):
        first, second = (2 * math.pi * torch.einsum("nhk,khm->hnm", x, w) for w in self.w)
        both = torch.cat([torch.cos(first) + torch.cos(second), torch.sin(first) + torch.sin(second)], -1)
        return both / (2 * math.sqrt(first.shape[-1]))

    def forward(self, x):
        q, k, v = (f(x).view(len(x), self.heads, self.size) for f in (self.query, self.key, self.value))
        similarity = torch.square(self.features(q) @ self.features(k).transpose(1, 2))
        norm = lambda x: torch.linalg.vector_norm(x, self.p, -1).square().T / (2 * self.size**0.25)
        magnitude = nn.functional.dropout(norm(q)[:, :, None] + norm(k)[:, None], self.rate, self.training)
        weights = torch.softmax(torch.log(similarity + 1e-5) + magnitude, -1)
        return self.out(torch.einsum("hqs,shk->qhk", weights, v).flatten(1))


class Rows(nn.Module):
    """One post-norm layer between a linear embedding and a linear output; the feed-forward net ends in a ReLU."""

    def __init__(self, features: int, config, variant):
        super().__init__()
        self.embed, self.out = nn.Linear(features, config.width), nn.Linear(config.width, 1)
        self.attention = Attention(config.width, config.heads, variant.points, variant.p, variant.magnitude_dropout)
        self.inner, self.outer = nn.Linear(config.width, config.feed_forward), nn.Linear(config.feed_forward, config.width)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(2))

    def forward(self, x):
        x = self.embed(x)
        x = self.norms[0](x + self.attention(x))
        x = self.norms[1](x + torch.relu(self.outer(torch.relu(self.inner(x)))))
        return self.out(x)


def load(model: Rows, params: dict) -> None:
    """Puts the parameters of our row Transformer into torch's."""
    layer, state = params["encoder_0"], {}

    def linear(name, kernel, bias, inputs):
        state[f"{name}.weight"], state[f"{name}.bias"] = np.reshape(kernel, (inputs, -1)).T, np.ravel(bias)

    width = model.embed.out_features
    for name in ("query", "key", "value", "out"):
        linear(f"attention.{name}", **layer["self_attention"][name], inputs=width)
    for n in (0, 1):
        state[f"attention.w.{n}"] = layer["self_attention"]["variant"][f"frequencies_{n + 1}"]
    for n, name in enumerate(("self_attention", "feed_forward")):
        norm = layer[f"{name}_residual"]["norm"]
        state[f"norms.{n}.weight"], state[f"norms.{n}.bias"] = norm["scale"], norm["bias"]
    linear("inner", **layer["feed_forward"]["inner"], inputs=width)
    linear("outer", **layer["feed_forward"]["out"], inputs=model.inner.out_features)
    linear("embed", **params["embed"], inputs=model.embed.in_features)
    linear("out", **params["out"], inputs=width)
    model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()})
