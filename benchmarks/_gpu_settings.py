"""Imported by every process that trains on the borrowed GPU: cuDNN chooses by trial."""

from __future__ import annotations

import torch

if torch.cuda.is_available():
    torch.backends.cudnn.benchmark = True
