"""Large image data sets as shards: tar files in WebDataset's format with an index that says where each image lies.

``write`` makes them of a folder, of Parquet files or of tars, whose samples ``origins`` lists; ``index`` is the format.
``decoding`` makes pixels of bytes, and ``reading`` gives batches of them, in any order, on any number of processes.
"""
