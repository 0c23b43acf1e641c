"""Real inputs: the handwritten-digit images bundled with scikit-learn."""

import numpy as np
from sklearn.datasets import load_digits


def digit(index: int) -> np.ndarray:
    """Return image ``index`` as 64 pixels in [0, 1]."""
    return load_digits().data[index] / 16.0
