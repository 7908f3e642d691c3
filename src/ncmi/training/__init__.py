"""Training on Lightning Fabric: loop, state, checkpoints, run folders. Knows no data set and no loss by name."""

from ncmi.errors import Interrupted
from ncmi.training.evaluate import Features, evaluate_readouts
from ncmi.training.model import Model, load_model
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder

__all__ = ["Features", "Interrupted", "Model", "RunFolder", "evaluate_readouts", "load_model", "train"]
