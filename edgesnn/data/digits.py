"""UCI optical digits as scikit-learn bundles them: 1797 images of 8x8, values 0...16."""

from __future__ import annotations

import numpy as np

from edgesnn.data.dataset import Dataset, checked, stratified_split
from edgesnn.targets.errors import EdgesnnError

TEST_FRACTION = 0.2  # 359 test images
SPLIT_SEED = 1797


def load_digits(split: str) -> Dataset:
    """The fixed, stratified train or test split; scale 1/16."""
    try:
        from sklearn.datasets import load_digits as bundled
    except ImportError:
        raise EdgesnnError(
            "digits: scikit-learn is missing; pip install 'edgesnn[train]' brings it"
        ) from None
    images, labels = bundled(return_X_y=True)
    x = np.asarray(images).reshape(-1, 8, 8).astype(np.uint8)
    y = np.asarray(labels)
    train, test = stratified_split(y, TEST_FRACTION, SPLIT_SEED)
    chosen = train if split == "train" else test
    names = tuple(str(n) for n in range(10))
    return checked("digits", split, x[chosen], y[chosen], names, 1.0 / 16.0)
