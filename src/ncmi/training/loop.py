"""The training loop: epochs, steps, micro-batches; stops and resumes anywhere. One for every kind of data."""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ncmi.data.batches import batch_slices, epoch_order, process_shares
from ncmi.data.splits import Split
from ncmi.errors import Interrupted
from ncmi.loss.alternating import AlternatingOptimizer
from ncmi.loss.distributed import all_reduce_sum, average_gradients, gather_rows
from ncmi.readouts.calibration import negative_log_likelihood
from ncmi.recipes import Training
from ncmi.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from ncmi.training.environment import mark_peak, peak_megabytes
from ncmi.training.judging import Features, information
from ncmi.training.model import Classifier
from ncmi.training.optimizers import learning_rate_factor, make_optimizers
from ncmi.training.run_folder import RunFolder
from ncmi.training.schema import EpochMetrics
from ncmi.training.step import TrainingStep
from ncmi.training.stopping import STOP_SIGNALS, StopRequest
from ncmi.training.watch import Watch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_METRICS_SECONDS = 1.0
_STEPS_A_LOOK = 8  # steps from one look to the next at what other processes say, where looking waits for the device
_BEGIN_AGAIN = "remove this file and resume the run, which then begins again"
_LOG = logging.getLogger("ncmi")


@dataclass
class Progress:
    """The part of a run's state that is neither a weight nor an optimizer's."""

    epoch: int = 0  # epochs finished
    step: int = 0  # steps finished in the present epoch
    total_steps: int = 0
    epoch_seconds: float = 0.0  # spent in the present epoch before the last stop
    best: list[float] = field(default_factory=list)  # compared item by item; more is better
    best_epoch: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Setup:
    """What a loop needs besides its data.

    Attributes:
        fabric: launched; gives device, precision and processes.
        model: on the device.
        training: the recipe's section.
        folder: where checkpoints and metrics go.
        on_epoch: each is called with each epoch's row of metrics, on the first process.
        watch: over the processes that train together; None for a process alone.
    """

    fabric: Fabric
    model: Classifier
    training: Training
    folder: RunFolder
    on_epoch: Sequence[Callable[[dict[str, Any]], None]] = ()
    watch: Watch | None = None


class Loop(ABC):
    """Trains a classifier on the training part of some data; subclasses know where its inputs come from.

    Args:
        setup: model, training and where it takes place.
        labels: of the whole data set, ``[N]``.
        split: its parts.
    """

    def __init__(self, setup: Setup, labels: Tensor, split: Split) -> None:
        fabric, model, training = setup.fabric, setup.model, setup.training
        self.fabric, self.model, self.split, self.training = fabric, model, split, training
        self.folder, self.on_epoch = setup.folder, setup.on_epoch
        self.watch, self.stop = setup.watch, StopRequest(enabled=False)
        # where samples do not couple, each process computes the loss of its own
        self.takes_share = fabric.world_size > 1 and not model.objective.couples_samples
        self.labels = labels.to(fabric.device)
        self.dtype = torch.float64 if training.precision == "64-true" else torch.float32
        counts = torch.bincount(self.labels[split.train.to(fabric.device)], minlength=model.objective.num_classes)
        model.objective.set_class_counts(counts)
        of_network, of_centroids = make_optimizers(model, training)
        self.raw_optimizers = [of_network] if of_centroids is None else [of_network, of_centroids]
        network: nn.Module = model.network
        if training.compile:
            # a shorter last batch gets a graph of its own: else all would get the slower one for any size
            network = cast(nn.Module, torch.compile(network, dynamic=False))
        # the network goes through DDP; the objective's gradient is averaged here, or is that of the whole batch already
        self.network, of_network = fabric.setup(network, of_network)
        if of_centroids is not None:
            of_centroids = cast(Optimizer, fabric.setup_optimizers(of_centroids))
        self.num_batches = len(batch_slices(len(split.train), training.batch_size))
        factor = learning_rate_factor(training, self.num_batches)
        self.schedulers = [LambdaLR(optimizer, factor) for optimizer in self.raw_optimizers]
        self.step = TrainingStep(
            model.objective,
            AlternatingOptimizer(of_network, of_centroids, training.alternation),
            schedulers=self.schedulers,
            parameters=model.parameters(),
            clip_norm=training.clip_norm,
            autocast=fabric.autocast,
            backward=fabric.backward,
        )
        self.average = (
            None
            if training.ema_decay is None
            else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(training.ema_decay), use_buffers=True)
        )
        self.progress = Progress()
        self.begun_at, self.saved_at, self.metrics_at = time.monotonic(), -math.inf, -math.inf
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=fabric.device)
        self.penalty_sum = torch.zeros_like(self.loss_sum)
        self.signals = torch.zeros(len(STOP_SIGNALS), dtype=torch.float64, device=fabric.device)

    @abstractmethod
    def forward(self, share: Tensor, micro: Tensor, at: tuple[int, int, int]) -> tuple[Tensor, Tensor | None]:
        """Features of a training step's samples of this process, and what the network adds to the loss.

        Args:
            share: indices of this process's samples, a run of ``micro``.
            micro: indices of the micro-batch of all processes.
            at: epoch, step and number of the micro-batch: all that randomness may depend on.

        Returns:
            Features ``[n, D]`` or ``[n, views, D]``, and a penalty, the mean over the process's samples, or None.
        """

    @abstractmethod
    def features_of(self, model: Classifier, indices: Tensor) -> Tensor:
        """Features ``[n, D]`` of samples in their order, whole on every process; ``model`` is in evaluation mode."""

    def reading(self, batches: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Around the steps of an epoch that are still to be made, whose batches are known. Default: nothing."""
        return nullcontext()

    def after_step(self) -> None:
        """After each optimizer step. Default: nothing."""
        return None

    def ranking(self, log_p: Tensor, labels: Tensor) -> dict[str, float | None]:
        """Further validation metrics by name. Default: none."""
        return {}

    def judge(self, row: EpochMetrics) -> list[float] | None:
        """What of an epoch's metrics ``selection="best"`` goes by, the more the better; None without validation."""
        return None if row.validation_accuracy is None else [row.validation_accuracy]

    def epoch_samples(self) -> Tensor:
        """Indices of the present epoch's samples in their order; they depend on seed and epoch alone."""
        train, seed, epoch = self.split.train, self.training.seed, self.progress.epoch
        if self.training.sampling == "all":
            return train[epoch_order(len(train), seed=seed, epoch=epoch)]
        # as many draws as there are samples, each class alike
        state = np.random.PCG64(np.random.SeedSequence((seed, epoch, 1)))
        labels = self.labels.cpu()[train.cpu()]
        draws = torch.from_numpy((state.random_raw(2 * len(train)) >> 1).astype(np.int64)).view(2, -1)
        members = [train[labels == label] for label in labels.unique()]
        # in turn through the classes, in an order of the epoch's own
        turn = (torch.arange(len(train)) % len(members))[draws[0].argsort()]
        return torch.stack(
            [members[label][draw % len(members[label])] for label, draw in zip(turn.tolist(), draws[1], strict=True)]
        )

    def share_of(self, samples: Tensor) -> Tensor:
        """The part of some samples that this process takes."""
        shares = process_shares(len(samples), self.fabric.world_size)
        start = sum(shares[: self.fabric.global_rank])
        return samples[start : start + shares[self.fabric.global_rank]]

    def gather(self, rows: Tensor, samples: Tensor) -> Tensor:
        """Rows of :meth:`share_of` some samples, of all processes, with gradient."""
        return gather_rows(rows, process_shares(len(samples), self.fabric.world_size))

    @property
    def evaluated(self) -> Classifier:
        """The model that is judged: the average of the weights, where one is kept."""
        return self.model if self.average is None else cast(Classifier, self.average.module)

    def run(self, stop: StopRequest) -> None:
        """Train from where the progress stands to the end.

        Raises:
            Interrupted: when asked to stop; a checkpoint has been written.
            FloatingPointError: when the loss is no longer finite.
        """
        while self.progress.epoch < self.training.epochs and not self._out_of_patience():
            self._run_epoch(stop)
        if self.fabric.is_global_zero:
            self.folder.previous.unlink(missing_ok=True)
        if self.training.selection == "best":
            self.fabric.barrier()
            self.evaluated.load_state_dict(load_checkpoint(self.folder.best)["model"])

    def _out_of_patience(self) -> bool:
        patience = self.training.patience
        return patience is not None and self.progress.epoch - self.progress.best_epoch >= patience

    def _run_epoch(self, stop: StopRequest) -> None:
        self.stop, progress = stop, self.progress
        started = time.perf_counter() - progress.epoch_seconds
        mark_peak(self.fabric.device)
        self.model.train()
        order = self.epoch_samples().to(self.fabric.device)
        batches = [order[rows] for rows in batch_slices(len(order), self.training.batch_size)]
        with self.reading(batches[progress.step :]):
            while progress.step < len(batches):
                self._step(batches[progress.step])
                progress.step += 1
                progress.total_steps += 1
                progress.epoch_seconds = time.perf_counter() - started
                if self.watch is not None:
                    self.watch.at(progress.total_steps, progress.epoch, progress.step)
                if (number := self._signal()) is not None:
                    self._save()
                    self.fabric.barrier()  # a launcher ends all when one has ended, also in the middle of writing
                    where = f"stopped in epoch {progress.epoch + 1} after step {progress.step}"
                    raise Interrupted(where, number)
                if self._is_checkpoint_due():
                    self._save()
        self._finish_epoch(len(order), started)

    def _signal(self) -> int | None:
        """The signal that has asked to stop after this step; all processes hear of it in the same one."""
        if self.fabric.world_size == 1:
            return self.stop.signal_number if self.stop.requested else None
        if self.fabric.device.type != "cpu" and self.progress.total_steps % _STEPS_A_LOOK:
            return None
        return next((int(n) for n, asked in zip(STOP_SIGNALS, self.signals.tolist(), strict=True) if asked), None)

    def _is_checkpoint_due(self) -> bool:
        steps, minutes = self.training.checkpoint_steps, self.training.checkpoint_minutes
        if steps is not None and self.progress.total_steps % steps == 0:
            return True
        # of several processes the first one writes, by its own clock
        return minutes is not None and time.monotonic() - max(self.saved_at, self.begun_at) >= 60 * minutes

    def _step(self, batch: Tensor) -> None:
        self.step.begin()
        processes = self.fabric.world_size
        if processes > 1:
            # what the network draws differs by process, and is the same for a run that goes on
            place = (self.training.seed, self.progress.epoch, self.progress.step, self.fabric.global_rank)
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        micro_batches = self.micro_batches(batch)
        # those of a step are added up over processes first
        sums = (self.loss_sum, self.penalty_sum) if processes == 1 else self.loss_sum.new_zeros(2).unbind()
        for number, micro in enumerate(micro_batches):
            at = (self.progress.epoch, self.progress.step, number)
            share = self.share_of(micro)
            with self.fabric.no_backward_sync(self.network, enabled=number < len(micro_batches) - 1):
                features, penalty = self.forward(share, micro, at)
                # DDP takes the mean over processes where the sum over samples is wanted
                weight = len(share) * processes / len(batch)
                if penalty is not None:
                    sums[1].add_(penalty.detach().double() * len(share))
                if self.takes_share:
                    counted = share
                else:
                    features, counted = self.gather(features, micro), micro
                    if penalty is not None:
                        penalty = penalty * (weight * len(batch) / len(micro))
                    weight = len(micro) / len(batch)
                # index_select: several times as fast on a CPU as indexing with a tensor
                labels = self.labels.index_select(0, counted)
                loss = self.step.add(features, labels, share=weight, penalty=penalty, synchronize=self.takes_share)
            if self.takes_share or self.fabric.is_global_zero:
                sums[0].add_(loss.double() * len(counted))
        if processes > 1:
            self._exchange(torch.stack(sums))
        self.step.finish(step=self.progress.total_steps, epoch=self.progress.epoch)
        self.after_step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def _exchange(self, sums: Tensor) -> None:
        """Add up over processes what each has of a step: gradients of the objective, losses, signals to stop."""
        if self.takes_share:
            average_gradients(self.model.objective.parameters())
        asked = [float(self.stop.requested and number == self.stop.signal_number) for number in STOP_SIGNALS]
        together = torch.cat([sums, sums.new_tensor(asked)])
        all_reduce_sum(together)
        self.loss_sum += together[0]
        self.penalty_sum += together[1]
        self.signals += together[2:]

    def micro_batches(self, batch: Tensor) -> list[Tensor]:
        """The parts that a batch is worked through in."""
        return [part for part in batch.tensor_split(self.training.accumulate) if len(part)]

    def _finish_epoch(self, samples: int, started: float) -> None:
        progress = self.progress
        train_loss = float(self.loss_sum) / samples
        if not math.isfinite(train_loss):
            raise self.diverged(f"the loss is {train_loss}")
        if self.training.alternation.mode == "class_means":
            self.put_centroids_to_class_means()
        seconds = time.perf_counter() - started
        peak = peak_megabytes(self.fabric.device)
        row = EpochMetrics(
            epoch=progress.epoch + 1,
            steps=progress.total_steps,
            learning_rate=self.raw_optimizers[0].param_groups[0]["lr"],
            train_loss=train_loss,
            train_penalty=float(self.penalty_sum) / samples if self.model.signature.kind == "bags" else None,
            **self.validate(),
            seconds=seconds,
            peak_memory_mb=peak,
        )
        plain = {name: getattr(row, name) for name in row.__struct_fields__}
        progress.rows.append(plain)
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
                tell(plain)
        last = progress.epoch == self.training.epochs or self._out_of_patience()
        saving = last or time.monotonic() - self.saved_at >= self.training.checkpoint_seconds
        # where checkpoints are left out because epochs are short, so are most of these: each waits for the disk
        if self.fabric.is_global_zero and (saving or time.monotonic() - self.metrics_at >= _METRICS_SECONDS):
            self.folder.write_metrics(progress.rows)
            self.metrics_at = time.monotonic()
        if saving:
            self._save()

    def validate(self) -> dict[str, float | None]:
        """Metrics of the validation part, by the fields of :class:`EpochMetrics`; nothing without one."""
        if len(self.split.validation) == 0:
            return {}
        validation = self.extract(self.split.validation)
        log_p = self.evaluated.log_proba(validation.features, "head")
        if not bool(log_p.isfinite().all()):
            raise self.diverged("scores are not finite")
        measures = information(self.evaluated, validation)
        metrics: dict[str, float | None] = {
            "loss": negative_log_likelihood(log_p, validation.labels),
            "accuracy": float((log_p.argmax(-1) == validation.labels).double().mean()),
            **self.ranking(log_p, validation.labels),
            "cmi": measures.cmi,
            "separation": measures.separation,
            "ncmi": measures.ncmi,
        }
        return {f"validation_{name}": value for name, value in metrics.items()}

    @torch.no_grad()
    def extract(self, indices: Tensor, model: Classifier | None = None) -> Features:
        """Features of samples, in evaluation mode, in their order, whole on every process.

        Raises:
            FloatingPointError: when they are no longer finite.
        """
        model = self.evaluated if model is None else model
        indices = indices.to(self.fabric.device)
        with self.evaluating(model):
            features = self.features_of(model, indices)
        if not bool(features.isfinite().all()):
            raise self.diverged("features are not finite")
        return Features(features, self.labels[indices])

    @contextmanager
    def evaluating(self, model: Classifier) -> Iterator[None]:
        """Evaluation mode, alike on every process, inside it."""
        was_training = model.training
        model.eval()
        if self.fabric.world_size > 1:
            # running statistics of batch normalization are each process's own until here
            for buffer in model.network.buffers():
                torch.distributed.broadcast(buffer, 0)
        try:
            yield
        finally:
            model.train(was_training)

    def diverged(self, what: str) -> FloatingPointError:
        """The error that says where the run has diverged, and the cure."""
        epoch = self.progress.epoch + 1
        return FloatingPointError(f"{what} in epoch {epoch}: lower the learning rate or clip gradients (clip_norm=1)")

    def put_centroids_to_class_means(self) -> None:
        """After an epoch: each centroid becomes the mean of its class's training samples."""
        # an average of the weights makes features of its own, and so class means of its own
        for model in [self.model] if self.average is None else [self.model, self.evaluated]:
            if model.objective.sets_centroids:
                train = self.extract(self.split.train, model)
                # every process has gathered all features: its own sums are the sums
                classifier = model.objective.centroid_classifier().partial_fit(train.features, train.labels)
                model.objective.set_centroids(classifier.centroids.to(self.dtype))

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        if self.fabric.is_global_zero:
            self.folder.keep_previous()
            save_checkpoint(self.folder.checkpoint, self.state())

    def state(self) -> dict[str, Any]:
        """Everything that a step depends on, as a tree of tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.raw_optimizers],
            "schedulers": [scheduler.last_epoch for scheduler in self.schedulers],
            "random": random_state(self.fabric.device),
            "loss_sum": self.loss_sum,
            "penalty_sum": self.penalty_sum,
            "progress": vars(self.progress),
        }

    def resume(self) -> None:
        """Take up the state of the last checkpoint, or of the one before it where that is damaged, and say so.

        Raises:
            CheckpointError: if it is damaged, of another model or of other data.
        """
        try:
            state = load_checkpoint(self.folder.checkpoint, cure=_BEGIN_AGAIN)
        except CheckpointError as error:
            if not self.folder.previous.exists():
                raise
            _LOG.warning("%s; going on from the checkpoint before it", str(error).partition(": remove")[0])
            state = load_checkpoint(self.folder.previous, cure=_BEGIN_AGAIN)
            if self.fabric.is_global_zero:
                self.folder.previous.replace(self.folder.checkpoint)
        try:
            self.model.load_state_dict(state["model"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            for optimizer, saved in zip(self.raw_optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
                _follow_layout(optimizer)
            for scheduler, last in zip(self.schedulers, state["schedulers"], strict=True):
                scheduler.last_epoch = last
                # a run that was made longer has another rate here; else it is the one that was saved
                for group, rate, factor in zip(
                    scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
                ):
                    group["lr"] = rate * factor(last)
            set_random_state(state["random"], self.fabric.device)
            self.loss_sum.copy_(state["loss_sum"])
            self.penalty_sum.copy_(state["penalty_sum"])
            self.progress = Progress(**state["progress"])
            if self.fabric.is_global_zero and self.progress.rows:
                self.folder.write_metrics(self.progress.rows)  # whatever has become of the file
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{self.folder.checkpoint}: not of this recipe and data ({reason}): restore them, or run it again"
            ) from None


def _follow_layout(optimizer: Optimizer) -> None:
    """Lay the state of each parameter out in memory as the parameter: fused steps walk both in the order of memory."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
