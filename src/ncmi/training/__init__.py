"""Training on Lightning Fabric, from recipe to results, for every kind of data: runs, comparisons, predictions.

``run`` makes one run, ``comparison`` many; ``schema`` says what their files hold. Nothing here knows a loss by name.
"""
