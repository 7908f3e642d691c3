# %% [markdown]
# # What the loss does to the features
#
# Train the same network twice, with a linear layer and with `NCMIHead`, and watch concentration (CMI), separation (Γ) and their ratio (NCMI) on held-out data.

# %%
import altair as alt
import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch import nn

import ncmi

images, labels = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
images = images.float() / 16
train, test = slice(0, 1200), slice(1200, None)

# %% [markdown]
# One line differs between the two networks.

# %%
layers = {"linear layer": nn.Linear, "NCMIHead": ncmi.NCMIHead}


def training(name):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), layers[name](128, 10))
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for epoch in range(1, 11):
        for rows in torch.randperm(1200).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            scores = network(images[test])
        information = ncmi.measure(scores.log_softmax(1), labels[test], num_classes=10)
        accuracy = (scores.argmax(1) == labels[test]).float().mean().item()
        yield {"last layer": name, "epoch": epoch, "accuracy": accuracy} | information.as_dict()


rows = [row for name in layers for row in training(name)]
table = pd.DataFrame(rows)
table.query("epoch == 10")[["last layer", "accuracy", "cmi", "separation", "ncmi"]].round(4)

# %% [markdown]
# The measures are those of the class probabilities of the two networks, so they compare. Lower is better:

# %%
alt.Chart(table).mark_line(point=True).encode(
    x="epoch:O", y=alt.Y("ncmi:Q", title="NCMI on held-out digits").scale(type="log"), color="last layer:N"
).properties(width=460, height=240)

# %% [markdown]
# One seed and one learning rate show how to measure, not which layer is better: see [findings](../findings.md) for that. For a model that you have already, save its
# outputs and run `ncmi measure FILE`.
