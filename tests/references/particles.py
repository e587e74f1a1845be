"""SVGD and SPOS written as loops from the formulas, in numpy and float64: one pair of particles after the other."""

import math

import numpy as np


def squared_distance(a, b) -> float:
    return float(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def bandwidth(x) -> float:
    """h² of the median of the pairs i < j."""
    n = len(x)
    distances = [squared_distance(x[i], x[j]) for i in range(n) for j in range(i + 1, n)]
    return float(np.median(distances)) / (2 * math.log(n + 1))


def kernel(a, b, h2: float) -> float:
    return math.exp(-squared_distance(a, b) / (2 * h2))


def repulsion(x, h2: float) -> np.ndarray:
    """Σ_j of the kernel's derivative in its first argument, at (x_j, x_i)."""
    found = np.zeros(np.shape(x))
    for i in range(len(x)):
        for j in range(len(x)):
            found[i] += -kernel(x[j], x[i], h2) * (x[j] - x[i]) / h2
    return found


def svgd(x, g, alpha: float, stepsize: float = 1.0, drive: str = "kernel") -> np.ndarray:
    n, h2 = len(x), bandwidth(x)
    found = -alpha * repulsion(x, h2)
    for i in range(n):
        for j in range(n):
            if drive == "kernel" or i == j:
                found[i] += kernel(x[i], x[j], h2) * g[j]
    return stepsize * found / n


def spos(x, g, xi, alpha: float, stepsize: float, temperature: float, c: float) -> np.ndarray:
    drift = temperature * g - math.sqrt(2 * temperature / stepsize) * c * xi
    return svgd(x, g, alpha, stepsize) + stepsize * drift
