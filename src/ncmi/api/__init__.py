"""Runs and comparisons from Python, beside the command line: ``ncmi.load``, ``ncmi.train``, ``ncmi.compare``.

``trained`` has a finished run that predicts, ``experiments`` makes runs and comparisons of data from files or memory.
"""
