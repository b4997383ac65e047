"""A logistic regression on features by scikit-learn, its strength chosen by cross-validated log loss; seconds in the process.

usage: python head_scikit_learn.py FEATURES.npz THREADS STRENGTH ...
"""

from __future__ import annotations

import json
import sys
import time
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold


def main() -> None:
    path, threads, *strengths = sys.argv[1:]
    with np.load(path) as data:
        features, labels = data["features"], data["labels"]
    # One scale for all features: the same objective as ours, and steps of about equal size.
    x = (features - features.mean(0)) / features.std(0).mean()
    folds = StratifiedKFold(5, shuffle=True, random_state=1)
    search = LogisticRegressionCV(
        Cs=[float(strength) for strength in strengths],
        cv=folds,
        scoring="neg_log_loss",
        max_iter=1000,
        n_jobs=int(threads),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        began = time.perf_counter()
        search.fit(x, labels)
        seconds = time.perf_counter() - began
        scores = next(iter(search.scores_.values())) if isinstance(search.scores_, dict) else search.scores_
    strength = float(np.ravel(search.C_)[0])
    log_loss = -float(np.max(np.asarray(scores).mean(0)))
    print(json.dumps({"seconds": round(seconds, 3), "strength": strength, "log_loss": round(log_loss, 4)}))


if __name__ == "__main__":
    main()
