"""Bag networks written out instance by instance, head by head, with whole attention matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Result = tuple[Tensor, Tensor, Tensor | None]


def double_state(network: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters in float64 that take gradients of their own, and buffers in float64."""
    trained = {name for name, _ in network.named_parameters()}
    return {
        name: value.detach().double().clone().requires_grad_(name in trained)
        for name, value in network.state_dict().items()
    }


def softmax(scores: Sequence[Tensor]) -> list[Tensor]:
    largest = max(score.detach() for score in scores)
    powers = [(score - largest).exp() for score in scores]
    total = sum(powers, torch.zeros((), dtype=torch.float64))
    return [power / total for power in powers]


def first_layer(state: State, x: Tensor, prefix: str = "projection.") -> list[Tensor]:
    return [(state[prefix + "linear.weight"] @ row).clamp_min(0) for row in x]


def mean(state: State, x: Tensor) -> Result:
    h = first_layer(state, x)
    return sum(h, torch.zeros(())) / len(h), torch.full((len(h),), 1 / len(h), dtype=torch.float64), None


def maximum(state: State, x: Tensor) -> Result:
    h = torch.stack(first_layer(state, x))
    vector, attention = [], torch.zeros(len(h), dtype=torch.float64)
    for column in h.T:
        winners = [i for i, value in enumerate(column.tolist()) if value == column.max().item()]
        vector.append(sum((column[i] for i in winners), torch.zeros(())) / len(winners))
        for i in winners:
            attention[i] += 1 / len(winners) / h.shape[1]
    return torch.stack(vector), attention, None


def abmil(state: State, x: Tensor, gated: bool) -> Result:
    h = first_layer(state, x)
    half = state["hidden.weight"].shape[0] // 2
    scores = []
    for one in h:
        hidden = state["hidden.weight"] @ one + state["hidden.bias"]
        hidden = hidden[:half].tanh() / (1 + (-hidden[half:]).exp()) if gated else hidden.tanh()
        scores.append(state["score.weight"][0] @ hidden)
    attention = softmax(scores)
    return sum((a * one for a, one in zip(attention, h, strict=True)), torch.zeros(())), torch.stack(attention), None


def query_scores(state: State, prefix: str, h: Sequence[Tensor]) -> list[list[Tensor]]:
    """Scores ``[heads][instances]``, from keys of every instance."""
    query = state[prefix + "query"]
    heads, width = query.shape
    keys = [(state[prefix + "key.weight"] @ one).view(heads, width) for one in h]
    return [[query[k] @ key[k] / math.sqrt(width) for key in keys] for k in range(heads)]


def query_output(state: State, prefix: str, h: Sequence[Tensor], weights: list[list[Tensor]]) -> Tensor:
    """Weighted sums of every instance's values, joined over heads and projected."""
    values = [state[prefix + "value.weight"] @ one + state[prefix + "value.bias"] for one in h]
    parts = []
    for k, of_head in enumerate(weights):
        width = len(values[0]) // len(weights)
        parts.append(
            sum((w * v[k * width : (k + 1) * width] for w, v in zip(of_head, values, strict=True)), torch.zeros(()))
        )
    return state[prefix + "output.weight"] @ torch.cat(parts) + state[prefix + "output.bias"]


def over_heads(weights: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(of_head) for of_head in weights]).mean(0)


def aem(state: State, x: Tensor, weight: float, share: float) -> Result:
    h = first_layer(state, x)
    weights = [softmax(scores) for scores in query_scores(state, "query.", h)]
    entropies = [-sum(w * w.log() for w in of_head) for of_head in weights]
    penalty = -weight * 0.5 * (1 + math.cos(math.pi * share)) * sum(entropies) / len(entropies)
    return query_output(state, "values.", h, weights), over_heads(weights), penalty


def asmil(state: State, x: Tensor, kept: Sequence[int], queries: int, weight: float) -> Result:
    h = first_layer(state, x)
    followed = first_layer(state, x.detach(), "anchor.projection.")
    weights, divergences = [], []
    for s in range(queries):
        weights.append([softmax(scores) for scores in query_scores(state, f"queries.{s}.", h)])
        for own, scores in zip(weights[s], query_scores(state, f"anchor.queries.{s}.", followed), strict=True):
            sigmoids = [1 / (1 + (-score).exp()) for score in scores]
            target = [one / sum(sigmoids) for one in sigmoids]
            divergences.append(sum(a * (a / p).log() for a, p in zip(target, own, strict=True)))
    tokens = [query_output(state, f"values.{s}.", h, weights[s]) for s in kept]
    of_tokens = [softmax(scores) for scores in query_scores(state, "class_query.", tokens)]
    vector = query_output(state, "class_values.", tokens, of_tokens)
    attention = sum(b * over_heads(weights[s]) for b, s in zip(over_heads(of_tokens), kept, strict=True))
    return vector, attention, weight * sum(divergences) / len(divergences)


def layer_norm(state: State, prefix: str, tokens: Tensor) -> Tensor:
    out = []
    for token in tokens:
        moved = token - token.mean()
        out.append(moved / ((moved**2).mean() + 1e-5).sqrt() * state[prefix + "weight"] + state[prefix + "bias"])
    return torch.stack(out)


def segments(count: int, wanted: int) -> list[list[int]]:
    """Successive indices, dealt out so that lengths differ by one at most, the longer parts first."""
    wanted = min(count, wanted)
    parts, start = [], 0
    for part in range(wanted):
        length = count // wanted + (1 if part < count % wanted else 0)
        parts.append(list(range(start, start + length)))
        start += length
    assert start == count
    return parts


def inverse(a: Tensor, iterations: int = 6) -> Tensor:
    eye = torch.eye(len(a), dtype=a.dtype)
    z = a.T / (max(column.abs().sum() for column in a.T) * max(row.abs().sum() for row in a))
    for _ in range(iterations):
        z = 0.25 * z @ (13 * eye - a @ z @ (15 * eye - a @ z @ (7 * eye - a @ z)))
    return z


def nystrom(state: State, prefix: str, tokens: Tensor, heads: int, landmarks: int) -> tuple[Tensor, Tensor]:
    """Outputs of all tokens and the whole approximated attention matrix ``[heads, n, n]``."""
    n, d = tokens.shape
    width = d // heads
    q, k, v = (tokens @ w.T for w in state[prefix + "qkv.weight"].split(d))
    parts = segments(n, landmarks)
    outputs, matrices = [], []
    for head in range(heads):
        columns = slice(head * width, (head + 1) * width)
        qh, kh, vh = q[:, columns] / math.sqrt(width), k[:, columns], v[:, columns]
        ql = torch.stack([sum(qh[i] for i in part) / len(part) for part in parts])
        kl = torch.stack([sum(kh[i] for i in part) / len(part) for part in parts])
        matrix = (qh @ kl.T).softmax(-1) @ inverse((ql @ kl.T).softmax(-1)) @ (ql @ kh.T).softmax(-1)
        taps = state[prefix + "neighbors.weight"][head, 0, :, 0]
        near = [sum(taps[t] * vh[i + t - 16] for t in range(33) if 0 <= i + t - 16 < n) for i in range(n)]
        outputs.append(matrix @ vh + torch.stack(near))
        matrices.append(matrix)
    joined = torch.cat(outputs, 1)
    return joined @ state[prefix + "output.weight"].T + state[prefix + "output.bias"], torch.stack(matrices)


def ppeg(state: State, prefix: str, tokens: Tensor, side: int) -> Tensor:
    out = []
    for y in range(side):
        for x in range(side):
            total = tokens[y * side + x]
            for index, size in enumerate((7, 5, 3)):
                weight, bias = (state[f"{prefix}convolutions.{index}.{name}"] for name in ("weight", "bias"))
                total = total + bias
                for dy in range(size):
                    for dx in range(size):
                        yy, xx = y + dy - size // 2, x + dx - size // 2
                        if 0 <= yy < side and 0 <= xx < side:
                            total = total + weight[:, 0, dy, dx] * tokens[yy * side + xx]
            out.append(total)
    return torch.stack(out)


def transmil(state: State, x: Tensor, heads: int, landmarks: int) -> Result:
    h = torch.stack(first_layer(state, x))
    side = next(s for s in range(1, len(h) + 1) if s * s >= len(h))
    origin = [*range(len(h)), *range(side * side - len(h))]
    tokens = torch.stack([state["class_token"][0], *(h[i] for i in origin)])
    tokens = tokens + nystrom(state, "first.", layer_norm(state, "norms.0.", tokens), heads, landmarks)[0]
    tokens = torch.cat([tokens[:1], ppeg(state, "positions.", tokens[1:], side)])
    added, matrices = nystrom(state, "last.", layer_norm(state, "norms.1.", tokens), heads, landmarks)
    vector = layer_norm(state, "norms.2.", tokens + added)[0]
    attention = torch.zeros(len(h), dtype=torch.float64)
    for position, i in enumerate(origin):
        attention[i] += matrices[:, 0, 1 + position].detach().mean()
    attention = attention.clamp_min(0)
    return vector, attention / attention.sum(), None
