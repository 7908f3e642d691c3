# %% [markdown]
# # A model for your table
#
# Train two losses on a CSV file, compare their scores, and use the model. In a notebook of your own, replace the first cell by the path of your file.

# %%
import pandas as pd
from sklearn.datasets import load_wine

load_wine(as_frame=True).frame.to_csv("wine.csv", index=False)
pd.read_csv("wine.csv").iloc[:3, -5:]

# %% [markdown]
# With the same seed, both losses have the same splits, initial weights and order of samples. The label column is found by itself here; `label_column="target"` names it.

# %%
import ncmi

runs = {name: ncmi.train("wine.csv", objective=name, epochs=10, quiet=True) for name in ("cross_entropy", "ncmi")}
pd.concat({name: run.table for name, run in runs.items()}).filter(regex="readout|^accuracy|nll|calibration").round(3)

# %% [markdown]
# The rows are read-outs, ways to decide from the same features: the trained head, centroid comparison (`cc`), a linear probe (`lp`) and nearest neighbors (`knn`). One
# seed says little: `ncmi.compare("wine.csv")` trains thirteen losses with five seeds, in parallel, and writes a report with intervals.
#
# Predict with a run; its preprocessing is applied:

# %%
run = runs["ncmi"]
run.predict_frame(pd.read_csv("wine.csv").sample(3, random_state=0))

# %% [markdown]
# A run is a folder. `ncmi.load` opens it again, also in another process:

# %%
again = ncmi.load("runs/wine-ncmi-seed0")
print(again.classes)

# %% [markdown]
# Next: `run.to_onnx("wine.onnx")` writes a file that runs without `ncmi`.
