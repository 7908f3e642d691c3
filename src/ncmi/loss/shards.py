"""Learned centroids spread over processes by class: each keeps, trains and saves its own rows alone.

The parameter is a DTensor with ``Shard(0)``, so that optimizers keep their state for the local rows and
``torch.distributed.checkpoint`` writes and reads it for any number of processes. The loss works on the local rows with
collectives of its own: of tensor operations that PyTorch has for DTensors, some gather the whole table silently.

A step gathers the batch's features ``[B, D]`` and labels, adds up two numbers for each sample and a count, gathers
``log W`` of each process, ``[world, B]``, and in the backward pass adds up the features' gradient, ``[B, D]``. With
p = 1 it gathers features and labels, and adds up the labels' centroids, ``[B, D]``, with B + D + 1 numbers; nothing in
the backward pass.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from ncmi.loss.centroids import anchor_directions
from ncmi.loss.chunked import Reduce
from ncmi.loss.module import NCMIBase
from ncmi.loss.signs import sign_directions


def shard_centroids(loss: NCMIBase, mesh: DeviceMesh) -> None:
    """Spread the learned centroids of a loss or head over the processes of a mesh with one dimension, in place.

    Every process of the mesh calls it, with the same options. From then on ``loss(features, labels)`` takes each
    process's own samples and gives the mean over those of all; its gradient of the features is that of the sum over
    processes, as ``DistributedDataParallel`` expects, which takes the mean. Process r has rows ``r·⌈C/n⌉`` and on, as
    torch has them; the last may have fewer, or none. Where the loss was made on the device ``"meta"`` each process
    keeps its own rows of the anchors alone, and for ``anchors="signs"`` makes no others.

    Raises:
        ValueError: for centroids that are not learned, another form than the likelihood or p = 1, and options that
            need all classes in one place.

    Example:
        >>> mesh = torch.distributed.init_device_mesh("cpu", (2,))  # doctest: +SKIP
        >>> shard_centroids(criterion, mesh)  # doctest: +SKIP
    """
    loss.check_shardable()
    if mesh.ndim != 1:
        raise ValueError(f"a mesh of {mesh.ndim} dimensions: give one of them, mesh['classes']")
    rank, world = mesh.get_local_rank(), mesh.size()
    step = -(-loss.num_classes // world)
    first, last = (min(r * step, loss.num_classes) for r in (rank, rank + 1))
    table = loss.centroid_logits
    if table.device.type != "meta":
        local = table.detach()[first:last].clone()
    elif loss.anchors == "signs":
        local = loss.anchor_length * sign_directions(torch.arange(first, last), loss.feature_dim, loss.anchor_seed)
    else:
        anchors = anchor_directions(loss.num_classes, loss.feature_dim, loss.anchors, loss.anchor_seed)
        local = loss.anchor_length * anchors[first:last]
    shape = torch.Size((loss.num_classes, loss.feature_dim))
    local = local.to(mesh.device_type)
    sharded = DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=shape, stride=(shape[1], 1))
    loss.centroid_logits = nn.Parameter(sharded)
    group = mesh.get_group()

    def add(x: Tensor) -> None:
        dist.all_reduce(x, group=group)

    def gather(x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world)]
        dist.all_gather(parts, x.contiguous(), group=group)
        return torch.stack(parts)

    loss.shard = Reduce(first, world, add, gather)
