"""Data: where it is, what kind it is (``kinds``), and how tables, images, CIFAR and bags (``bags``) are read.

What is read becomes a :class:`ncmi.data.dataset.Dataset`, which is split, standardized, augmented and put into batches
by the files of these names. :func:`kind_of` takes no torch; everything else is imported from its own file.
"""

from ncmi.data.kinds import kind_of

__all__ = ["kind_of"]
