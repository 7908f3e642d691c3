"""Mean and maximum over a bag: what attention has to do better than."""

from torch import Tensor

from ncmi.networks.bags.attention import without_autocast
from ncmi.networks.bags.packing import PackedNetwork, Pooled


class _OneByOne(PackedNetwork):
    """Bags are pooled one by one, so that no mask is needed."""

    def groups(self, sizes: list[int]) -> list[list[int]]:
        return [[bag] for bag in range(len(sizes))]


class MeanPool(_OneByOne):
    """The mean of ``h = ReLU(W x)`` over a bag; every instance's attention is 1/N. Args: see :class:`PackedNetwork`."""

    def pool(self, mask: Tensor | None, *parts: Tensor) -> Pooled:
        (instances,) = parts
        count = instances.shape[1]
        return Pooled(instances.mean(1), instances.new_full((1, count), 1 / count))


class MaxPool(_OneByOne):
    """The maximum of each component of ``h = ReLU(W x)`` over a bag. Args: see :class:`PackedNetwork`.

    Attention is the share of components that an instance gives; instances with the same largest value, such as the zero
    of a component that is nowhere active, share it equally, as they share its gradient.
    """

    def pool(self, mask: Tensor | None, *parts: Tensor) -> Pooled:
        (instances,) = parts
        vector = instances.amax(1)
        largest = (instances.detach() == vector.detach()[:, None]).to(instances.dtype)
        with without_autocast(instances):
            return Pooled(vector, (largest @ (1 / largest.sum(1))[:, :, None])[..., 0] / vector.shape[1])
