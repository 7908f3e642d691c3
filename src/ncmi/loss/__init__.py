"""The paper: the loss, its centroids and the measures. Torch alone.

Begin with ``equation``, the whole of it in plain sums; ``functional`` and ``module`` compute the same, fast and without
losing digits, and README.md beside this file says how. Nothing here imports another folder of ``ncmi``.
"""
