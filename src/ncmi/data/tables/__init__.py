"""Tables as they lie on disk: read by evidence (``reading``), columns told by kind (``columns``), and a label chosen.

``table`` holds what comes of it; ``preprocessing`` turns its columns into numbers, by what the training part shows.
"""
