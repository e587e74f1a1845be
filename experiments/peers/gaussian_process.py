"""Exact Gaussian-process regression by scikit-learn, on the split of a run: what kernel methods are held against."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from attention_variants import tasks
from attention_variants.train.settings import Settings

RESTARTS = 1


def rbf(settings: Settings) -> dict:
    """Metrics with a Gaussian kernel, a width for each feature, and noise; all by marginal likelihood on the training rows.

    Nothing of it is chosen on the test rows, so that its `rmse_best` is its `rmse`.
    """
    scaled = tasks.load("regression").Task.new(settings).scaled
    split, x, y = scaled.split, scaled.x, scaled.y[:, 0]
    similarity = RBF(np.ones(x.shape[1]), (1e-2, 1e3))
    kernel = ConstantKernel(1.0, (1e-3, 1e3)) * similarity + WhiteKernel(0.1, (1e-6, 1e1))
    process = GaussianProcessRegressor(kernel, n_restarts_optimizer=RESTARTS, normalize_y=True, random_state=settings.run.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(x[split.train], y[split.train])
    error = lambda rows: float(np.sqrt(np.mean(np.square(process.predict(x[rows]) - y[rows]))) * scaled.y_scale[0])
    return {name: dict.fromkeys(("rmse", "rmse_best"), error(getattr(split, name))) for name in ("validation", "test")}
