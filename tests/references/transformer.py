"""The Transformer with standard attention in plain float64 numpy, sentence by sentence, from a linen parameter tree."""

import math

import numpy as np
from references.attention import attention, gaussian, growth

PAD, BEGIN = 0, 1


def logits(params, source_BS, target_BT, *, norm):
    """(B, T, vocabulary); `norm` is "post" or "pre"."""
    rows = [_sentence(params, source, target, norm) for source, target in zip(source_BS, target_BT, strict=True)]
    return np.stack(rows)


def _sentence(params, source_S, target_T, norm):
    x = _embed(params, source_S)
    hide_padding = lambda i, j: source_S[j] != PAD
    hide_future = lambda i, j: j <= i
    for layer in _layers(params, "encoder"):
        x = _residual(layer, "self_attention", x, norm, lambda x, p: _attend(p, x, x, hide_padding))
        x = _residual(layer, "feed_forward", x, norm, _feed_forward)
    memory = _norm(params["encoder_norm"], x) if norm == "pre" else x
    x = _embed(params, [BEGIN, *target_T[:-1]])
    for layer in _layers(params, "decoder"):
        x = _residual(layer, "self_attention", x, norm, lambda x, p: _attend(p, x, x, hide_future))
        x = _residual(layer, "cross_attention", x, norm, lambda x, p: _attend(p, x, memory, hide_padding))
        x = _residual(layer, "feed_forward", x, norm, _feed_forward)
    x = _norm(params["decoder_norm"], x) if norm == "pre" else x
    return x @ _array(params["embedding"]["embedding"]).T


def _array(x):
    return np.asarray(x, np.float64)


def _layers(params, stack):
    return [params[f"{stack}_{n}"] for n in range(sum(name.startswith(f"{stack}_") and name[8:].isdigit() for name in params))]


def _embed(params, tokens):
    table = _array(params["embedding"]["embedding"])
    width = table.shape[1]
    x = np.zeros((len(tokens), width))
    for place, token in enumerate(tokens):
        for i in range(width // 2):
            angle = place / 10000 ** (2 * i / width)
            x[place, 2 * i] = math.sqrt(width) * table[token, 2 * i] + math.sin(angle)
            x[place, 2 * i + 1] = math.sqrt(width) * table[token, 2 * i + 1] + math.cos(angle)
    return x


def _norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * _array(p["scale"]) + _array(p["bias"])


def _residual(layer, name, x, norm, sublayer):
    p = layer[f"{name}_residual"]["norm"]
    if norm == "pre":
        return x + sublayer(_norm(p, x), layer[name])
    return _norm(p, x + sublayer(x, layer[name]))


def _feed_forward(x, p):
    inner = np.maximum(0, x @ _array(p["inner"]["kernel"]) + _array(p["inner"]["bias"]))
    return inner @ _array(p["out"]["kernel"]) + _array(p["out"]["bias"])


def _attend(p, x_QD, y_SD, sees):
    def project(name, x):
        kernel_DHK, bias_HK = _array(p[name]["kernel"]), _array(p[name]["bias"])
        heads = [x @ kernel_DHK[:, h] + bias_HK[h] for h in range(kernel_DHK.shape[1])]
        return np.stack(heads, axis=1)[None]

    out_BQHV, _ = attention(
        project("query", x_QD), project("key", y_SD), project("value", y_SD), gaussian, growth, lambda b, h, i, j: sees(i, j)
    )
    kernel_HVD = _array(p["out"]["kernel"])
    return sum(out_BQHV[0, :, h] @ kernel_HVD[h] for h in range(kernel_HVD.shape[0])) + _array(p["out"]["bias"])
