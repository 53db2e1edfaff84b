"""Images in: loaders for the supported sources, and three hold-out splits that are disjoint by construction.

Import from the modules: :mod:`autoprune.datasets.load` (``load_dataset``), :mod:`autoprune.datasets.dataset`
(``ImageDataset``, ``Normalization``) and :mod:`autoprune.datasets.splits` (``make_splits``).
"""
