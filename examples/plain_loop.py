"""NCMI in a plain PyTorch loop: the last layer and the loss change, everything else stays.

python examples/plain_loop.py
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import ncmi

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
splits = train_test_split(images / 16, labels, test_size=0.2, stratify=labels, random_state=0)
x_train, x_test = (torch.tensor(x, dtype=torch.float32) for x in splits[:2])
y_train, y_test = (torch.tensor(y) for y in splits[2:])

# no nn.Linear(128, 10) at the end: the network returns its feature
network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128))
# was nn.CrossEntropyLoss()
criterion = ncmi.NCMILoss(num_classes=10, feature_dim=128)
# the centroids are parameters of the loss
optimizer = torch.optim.AdamW([*network.parameters(), *criterion.parameters()], lr=5e-3)

for _ in range(30):
    for rows in torch.randperm(len(x_train)).split(64):
        optimizer.zero_grad()
        loss = criterion(network(x_train[rows]), y_train[rows])
        loss.backward()
        optimizer.step()

network.eval()
criterion.eval()
with torch.no_grad():
    train_features, test_features = network(x_train), network(x_test)
    decided = criterion.predict_proba(test_features).argmax(1)
    print(f"trained centroids: {(decided == y_test).double().mean():.2%} of the test digits are right")
    by_means = criterion.centroid_classifier().fit(train_features, y_train).predict(test_features)
    print(f"true class means (CC): {(by_means == y_test).double().mean():.2%}")
    measures = ncmi.measure(criterion.log_distribution(test_features), y_test, num_classes=10)
    print(f"CMI {measures.cmi:.3g} nats, Γ {measures.separation:.3g} nats, NCMI {measures.ncmi:.3g}")
