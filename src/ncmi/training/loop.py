"""The training loop: epochs, steps, micro-batches; stops and resumes anywhere."""

from __future__ import annotations

import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Generic, TypeVar, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ncmi.alternating import AlternatingOptimiser
from ncmi.centroids import CentroidClassifier
from ncmi.data import Split, batch_slices, epoch_order, process_shares
from ncmi.distributed import gather_rows
from ncmi.errors import Interrupted
from ncmi.loss import NCMILoss
from ncmi.recipes import Training
from ncmi.training.checkpoint import load_checkpoint, save_checkpoint
from ncmi.training.evaluate import Features
from ncmi.training.loop_state import restore, state_of
from ncmi.training.memory import mark_peak, peak_megabytes
from ncmi.training.model import Classifier
from ncmi.training.optimisers import make_optimisers
from ncmi.training.progress import Progress
from ncmi.training.run_folder import RunFolder
from ncmi.training.schedule import learning_rate_factor
from ncmi.training.signals import StopRequest

M = TypeVar("M", bound=Classifier)
_METRICS_SECONDS = 1.0


class Loop(ABC, Generic[M]):
    """Trains a classifier on the training part of some data; subclasses know where its inputs come from.

    Args:
        fabric: launched; gives device, precision and processes.
        model: on the device.
        labels: of the whole data set, ``[N]``.
        split: its parts.
        training: the recipe's section.
        folder: where checkpoints and metrics go.
        on_epoch: each is called with each epoch's row of metrics, on the first process.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: M,
        labels: Tensor,
        split: Split,
        training: Training,
        folder: RunFolder,
        on_epoch: Sequence[Callable[[dict[str, Any]], None]],
    ) -> None:
        self.fabric, self.model, self.split, self.training = fabric, model, split, training
        self.folder, self.on_epoch = folder, on_epoch
        self.labels = labels.to(fabric.device)
        self.dtype = torch.float64 if training.precision == "64-true" else torch.float32
        counts = torch.bincount(self.labels[split.train.to(fabric.device)], minlength=model.objective.num_classes)
        model.objective.set_class_counts(counts)
        network, centroids = make_optimisers(model, training)
        backbone: nn.Module = model.backbone
        if training.compile:
            # a shorter last batch gets a graph of its own: else all would get the slower one for any size
            backbone = cast(nn.Module, torch.compile(backbone, dynamic=False))
        # the backbone goes through DDP; the objective sees the batch of all processes on each of them and needs none
        self.backbone, network_optimiser = fabric.setup(backbone, network)
        own = None if centroids is None else cast(Optimizer, fabric.setup_optimizers(centroids))
        self.optimiser = AlternatingOptimiser(network_optimiser, own, training.alternation)
        self.raw_optimisers = [network] if centroids is None else [network, centroids]
        self.num_batches = len(batch_slices(len(split.train), training.batch_size))
        factor = learning_rate_factor(training, self.num_batches)
        self.schedulers = [LambdaLR(optimiser, factor) for optimiser in self.raw_optimisers]
        self.average = (
            None
            if training.ema_decay is None
            else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(training.ema_decay), use_buffers=True)
        )
        self.progress = Progress()
        self.saved_at = self.told_at = -math.inf
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=fabric.device)
        self.penalty_sum = torch.zeros_like(self.loss_sum)

    @abstractmethod
    def own_features(self, own: Tensor, micro: Tensor, at: tuple[int, int, int]) -> tuple[Tensor, Tensor | None]:
        """Features of a training step's own samples, and what the network adds to the loss.

        Args:
            own: indices of this process's samples, a run of ``micro``.
            micro: indices of the micro-batch of all processes.
            at: epoch, step and number of the micro-batch: all that randomness may depend on.

        Returns:
            Features ``[n, D]`` or ``[n, views, D]``, and a penalty, the mean over the own samples, or None.
        """

    @abstractmethod
    def extract(self, indices: Tensor, model: M | None = None) -> Features:
        """Features of samples, in evaluation mode, in their order, whole on every process.

        Raises:
            FloatingPointError: when they are no longer finite.
        """

    @abstractmethod
    def validate(self) -> dict[str, float | None]:
        """Metrics of the validation part, by names; None for each where all of it is trained on."""

    @abstractmethod
    def judge(self, row: dict[str, Any]) -> list[float] | None:
        """What of an epoch's metrics ``selection="best"`` goes by, the more the better; None without validation."""

    def epoch_samples(self) -> Tensor:
        """Indices of the present epoch's samples in their order: by default all of the training part, shuffled."""
        return self.split.train[epoch_order(len(self.split.train), seed=self.training.seed, epoch=self.progress.epoch)]

    def reading(self, batches: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Around the steps of an epoch that are still to be made, whose batches are known. Default: nothing."""
        return nullcontext()

    def after_step(self) -> None:
        """After each optimiser step. Default: nothing."""

    def own_share(self, samples: Tensor) -> Tensor:
        """The part of some samples that this process takes."""
        shares = process_shares(len(samples), self.fabric.world_size)
        start = sum(shares[: self.fabric.global_rank])
        return samples[start : start + shares[self.fabric.global_rank]]

    @property
    def evaluated(self) -> M:
        """The model that is judged: the average of the weights, where one is kept."""
        return self.model if self.average is None else cast(M, self.average.module)

    def run(self, stop: StopRequest) -> None:
        """Train from where the progress stands to the end.

        Raises:
            Interrupted: when asked to stop; a checkpoint has been written.
            FloatingPointError: when the loss is no longer finite.
        """
        while self.progress.epoch < self.training.epochs and not self._out_of_patience():
            self._run_epoch(stop)
        if self.training.selection == "best":
            self._load_best()

    def _out_of_patience(self) -> bool:
        patience = self.training.patience
        return patience is not None and self.progress.epoch - self.progress.best_epoch >= patience

    def _run_epoch(self, stop: StopRequest) -> None:
        progress = self.progress
        started = time.perf_counter() - progress.epoch_seconds
        mark_peak(self.fabric.device)
        self.model.train()
        order = self.epoch_samples().to(self.fabric.device)
        batches = [order[one] for one in batch_slices(len(order), self.training.batch_size)]
        with self.reading(batches[progress.step :]):
            while progress.step < len(batches):
                self._step(batches[progress.step])
                progress.step += 1
                progress.total_steps += 1
                progress.epoch_seconds = time.perf_counter() - started
                every = self.training.checkpoint_steps
                if stop.requested:
                    self._save()
                    raise Interrupted(f"stopped in epoch {progress.epoch + 1} after step {progress.step}")
                if every is not None and progress.total_steps % every == 0:
                    self._save()
        self._finish_epoch(len(order), started)

    def _step(self, batch: Tensor) -> None:
        self.optimiser.zero_grad()
        micro_batches = self.micro_batches(batch)
        objective = self.model.objective
        for number, micro in enumerate(micro_batches):
            at = (self.progress.epoch, self.progress.step, number)
            own = self.own_share(micro)
            # index_select: several times as fast on a CPU as indexing with a tensor
            labels = self.labels.index_select(0, micro)
            with self.fabric.no_backward_sync(self.backbone, enabled=number < len(micro_batches) - 1):
                own_features, penalty = self.own_features(own, micro, at)
                features = gather_rows(own_features, process_shares(len(micro), self.fabric.world_size))
                with self.fabric.autocast():
                    loss = objective.loss(features, labels)
                if loss.dim() > 0:
                    raise ValueError(f"the loss has shape {list(loss.shape)}: training needs a reduction to one number")
                total = loss
                if penalty is not None:
                    # DDP takes the mean over processes where the sum over samples is wanted
                    total = loss + penalty * (len(own) * self.fabric.world_size / len(micro))
                    self.penalty_sum += penalty.detach().double() * len(own)
                self.fabric.backward(total * (len(micro) / len(batch)))
            objective.observe(features.detach(), labels)
            self.loss_sum += loss.detach().double() * len(micro)
        if self.training.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip_norm)
        self.optimiser.step(step=self.progress.total_steps, epoch=self.progress.epoch)
        objective.update()
        self.after_step()
        with warnings.catch_warnings():
            # whoever's turn it is not does not step, while its schedule does: that is meant
            warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step")
            for scheduler in self.schedulers:
                scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def micro_batches(self, batch: Tensor) -> list[Tensor]:
        """The parts that a batch is worked through in."""
        return [part for part in batch.tensor_split(self.training.accumulate) if len(part)]

    def _finish_epoch(self, samples: int, started: float) -> None:
        progress = self.progress
        train_loss = float(self.loss_sum) / samples
        if not math.isfinite(train_loss):
            raise self.diverged(f"the loss is {train_loss}")
        if self.training.alternation.mode == "class_means":
            self._put_centroids_to_class_means()
        seconds = time.perf_counter() - started
        peak = peak_megabytes(self.fabric.device)
        row = {
            "epoch": progress.epoch + 1,
            "steps": progress.total_steps,
            "learning_rate": self.raw_optimisers[0].param_groups[0]["lr"],
            "train_loss": train_loss,
            **self.validate(),
            "seconds": seconds,
            "peak_memory_mb": peak,
        }
        progress.rows.append(row)
        progress.epoch += 1
        progress.step, progress.epoch_seconds = 0, 0.0
        self.loss_sum.zero_()
        self.penalty_sum.zero_()
        judged = self.judge(row)
        better = judged is None or judged > progress.best
        if better:
            progress.best, progress.best_epoch = judged or [], progress.epoch
        if self.fabric.is_global_zero:
            if better and self.training.selection == "best":
                save_checkpoint(self.folder.best, {"model": self.evaluated.state_dict()})
            for tell in self.on_epoch:
                tell(row)
        last = progress.epoch == self.training.epochs or self._out_of_patience()
        saving = last or time.monotonic() - self.saved_at >= self.training.checkpoint_seconds
        # where checkpoints are left out because epochs are short, so are most of these: each waits for the disk
        if self.fabric.is_global_zero and (saving or time.monotonic() - self.told_at >= _METRICS_SECONDS):
            self.folder.write_metrics(progress.rows)
            self.told_at = time.monotonic()
        if saving:
            self._save()

    @contextmanager
    def evaluating(self, model: M) -> Iterator[None]:
        """Evaluation mode, alike on every process, inside it."""
        was_training = model.training
        model.eval()
        if self.fabric.world_size > 1:
            # running statistics of batch normalisation are each process's own until here
            for buffer in model.backbone.buffers():
                torch.distributed.broadcast(buffer, 0)
        try:
            yield
        finally:
            model.train(was_training)

    def diverged(self, what: str) -> FloatingPointError:
        """The error that says where the run has diverged, and the cure."""
        epoch = self.progress.epoch + 1
        return FloatingPointError(f"{what} in epoch {epoch}: lower the learning rate or clip gradients (clip_norm=1)")

    def _put_centroids_to_class_means(self) -> None:
        # an average of the weights makes features of its own, and so class means of its own
        for model in [self.model] if self.average is None else [self.model, self.evaluated]:
            if isinstance(model.objective, NCMILoss):
                train = self.extract(self.split.train, model)
                classifier: CentroidClassifier = model.objective.centroid_classifier()
                # every process has gathered all features: its own sums are the sums
                classifier.partial_fit(train.features, train.labels)
                model.objective.set_centroids(classifier.centroids.to(self.dtype))

    def _load_best(self) -> None:
        self.fabric.barrier()
        self.evaluated.load_state_dict(load_checkpoint(self.folder.best)["model"])

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        if self.fabric.is_global_zero:
            save_checkpoint(self.folder.checkpoint, state_of(self))

    def resume(self) -> None:
        """Take up the state of the last checkpoint.

        Raises:
            CheckpointError: if it is damaged or of another model.
        """
        restore(self, load_checkpoint(self.folder.checkpoint))
