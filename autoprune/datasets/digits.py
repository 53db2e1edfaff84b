"""The built-in dataset: scikit-learn's handwritten digits."""

import numpy as np
import torch

from autoprune.datasets.dataset import ImageDataset


def load_digits_dataset() -> ImageDataset:
    """Return the 1797 grey digits as float32 ``(1797, 1, 8, 8)`` scaled from 0..16 to 0..1, with labels 0 to 9.

    They ship with scikit-learn: nothing is downloaded. Normalise with :data:`autoprune.datasets.dataset.DIGITS`.
    """
    from sklearn.datasets import load_digits  # imported here: scikit-learn takes a second to import

    images, labels = load_digits(return_X_y=True)
    scaled = (np.asarray(images, dtype=np.float32) / np.float32(16.0)).reshape(-1, 1, 8, 8)
    targets = np.asarray(labels, dtype=np.int64)
    class_names = [str(digit) for digit in range(10)]
    return ImageDataset.of(torch.from_numpy(scaled), torch.from_numpy(targets), class_names, "digits")
