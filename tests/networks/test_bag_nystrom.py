"""The parts of TransMIL: segments, pseudo-inverse, a row of the attention matrix, position encoding, attention."""

from __future__ import annotations

import bag_reference as reference
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ncmi.networks.bags import TransMIL
from ncmi.networks.bags import transmil as attention_module
from ncmi.networks.bags.transmil import (
    PPEG,
    NystromAttention,
    _attention,
    class_row,
    pseudo_inverse,
    pseudo_inverse_times,
    segment_means,
)


@given(count=st.integers(1, 60), segments=st.integers(1, 20))
def test_segments(count: int, segments: int) -> None:
    tokens = torch.randn(2, count, 3, dtype=torch.float64)
    expected = [tokens[:, part].mean(1) for part in reference.segments(count, segments)]
    torch.testing.assert_close(segment_means(tokens, segments), torch.stack(expected, 1))


def test_pseudo_inverse_converges_for_each_matrix_by_itself() -> None:
    matrices = (4 * torch.randn(3, 6, 6, dtype=torch.float64)).softmax(-1)
    torch.testing.assert_close(pseudo_inverse(matrices, 40), torch.linalg.pinv(matrices), rtol=1e-6, atol=1e-8)
    for matrix, found in zip(matrices, pseudo_inverse(matrices, 6), strict=True):
        torch.testing.assert_close(found, reference.inverse(matrix))


def test_attention_is_exact_where_every_token_is_a_landmark() -> None:
    torch.manual_seed(0)
    attention = NystromAttention(8, heads=2, landmarks=16, iterations=60).double()
    torch.nn.init.normal_(attention.qkv.weight)
    torch.nn.init.zeros_(attention.neighbors.weight)
    tokens = torch.randn(5, 8, dtype=torch.float64)
    q, k, v = (tokens @ w.T for w in attention.qkv.weight.split(8))
    heads = [(q[:, c] @ k[:, c].T / 2).softmax(-1) @ v[:, c] for c in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(attention(tokens[None])[0], attention.output(torch.cat(heads, 1)), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 16, 17, 18, 41])
def test_class_token_is_the_first_of_all_tokens(count: int) -> None:
    attention = NystromAttention(6, heads=3, landmarks=4).double()
    tokens = torch.randn(count, 6, dtype=torch.float64)
    whole, matrices = reference.nystrom(reference.double_state(attention), "", tokens, 3, 4)
    # beside another sequence, which has no part in it
    both = torch.stack([tokens, torch.randn_like(tokens)])
    token, row = attention.class_token(both)
    torch.testing.assert_close(attention(both)[0], whole.detach())
    torch.testing.assert_close(token[0], whole[0].detach())
    torch.testing.assert_close(row[0], matrices[:, 0].detach())


def test_row_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, landmarks, keys = (
        torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((2, 3), (2, 3, 4), (2, 7, 4))
    )
    expected = (weights[:, None] @ (landmarks @ keys.mT).softmax(-1))[:, 0]
    torch.testing.assert_close(class_row(weights, landmarks, keys), expected)
    assert torch.autograd.gradcheck(class_row, (weights, landmarks, keys))


@pytest.mark.parametrize("at_a_time", [1, 21, 43, 1000])
def test_row_does_not_depend_on_how_many_heads_are_worked_out_at_once(
    at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_module, "_AT_A_TIME", at_a_time)
    inputs = [torch.randn(*shape, dtype=torch.float64) for shape in ((2, 5, 3), (2, 5, 3, 4), (2, 5, 7, 4))]
    ours, theirs = ([one.clone().requires_grad_() for one in inputs] for _ in range(2))
    weights, landmarks, keys = theirs
    expected = (weights[..., None, :] @ (landmarks @ keys.mT).softmax(-1)).squeeze(-2)
    row = class_row(*ours)
    torch.testing.assert_close(row, expected)
    row.sin().sum().backward()
    expected.sin().sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_position_encoding_is_three_convolutions_and_identity() -> None:
    encoding = PPEG(4).double()
    tokens = torch.randn(36, 4, dtype=torch.float64)
    square = tokens.T.reshape(1, 4, 6, 6)
    expected = square + sum(convolution(square) for convolution in encoding.convolutions)
    torch.testing.assert_close(encoding(tokens[None], 6)[0], expected[0].flatten(1).T)
    assert [convolution.kernel_size for convolution in encoding.convolutions] == [(7, 7), (5, 5), (3, 3)]


def test_attention_of_a_row_with_negative_factors() -> None:
    # three instances, the first of them repeated; head means 0.9 (class token), 0.5, -0.1, 0.2, 0.1 (repetition)
    row = torch.tensor([[0.9, 0.7, 0.2, 0.2, 0.0], [0.9, 0.3, -0.4, 0.2, 0.2]])
    shares = _attention(row[None], torch.tensor([[0, 1, 2, 0]]), torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(shares[0], torch.tensor([0.75, 0.0, 0.25]))


def test_attention_where_no_instance_is_read() -> None:
    row = torch.tensor([[1.0, 0.0, -0.1, 0.0, 0.0]])
    # the second of four places is padding
    mask = torch.tensor([[True, False, True, True]])
    shares = _attention(row[None], torch.tensor([[0, 2, 3, 0]]), mask)
    torch.testing.assert_close(shares[0], mask[0] / 3)


def test_order_matters_and_repetitions_do_not_stand_for_themselves() -> None:
    torch.manual_seed(0)
    network = TransMIL(4, width=8, heads=2).double().eval()
    bag = torch.randn(9, 4, dtype=torch.float64)
    assert not torch.allclose(network(bag).vector, network(bag.flip(0)).vector)
    # 8 instances are made up to 9 by the first one
    made_up = torch.cat([bag[:8], bag[:1]])
    torch.testing.assert_close(network(bag[:8]).vector, network(made_up).vector)
    torch.testing.assert_close(network(bag[:8]).attention.sum(), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("iterations", [0, 1, 6])
def test_last_iteration_on_a_narrow_matrix_is_that_on_the_whole(iterations: int) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(2, 3, 5, 5, dtype=torch.float64).softmax(-1)
    right = torch.randn(2, 3, 5, 2, dtype=torch.float64)
    whole = pseudo_inverse(matrices, iterations)
    torch.testing.assert_close(pseudo_inverse_times(matrices, right, iterations), whole @ right)
    from_left = pseudo_inverse_times(matrices.mT, right, iterations).mT
    torch.testing.assert_close(from_left, right.mT @ whole)
