"""The change of one weight, as a value: dense, low-rank, a map of the tokens that the weight reads, or the new weight."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WEIGHT_ROWS_AT_ONCE = 320
"""Rows of a weight that are worked on at a time: a float64 copy of them stays in the processor's cache."""


PARTS = ("delta", "left", "right", "token", "value")
"""The tensors that a change may hold."""


@dataclass(frozen=True, eq=False, repr=False)
class Change:
    """The change of one weight W, in one of five forms.

    ===================  ==========================  =====================================================
    fields               shapes                      the weight becomes
    ===================  ==========================  =====================================================
    ``delta``            that of W                   W + delta
    ``left``, ``right``  [out, r], [r, in]           W + left right
    ``token``, ``right`` [in, r], [r, in]            W + W token right
    ``token``            [in, in]                    W + W token
    ``value``            that of W                   value
    ===================  ==========================  =====================================================

    W is a matrix [out, in] in the forms with ``token``. With ``left`` it may also be a convolution [out, in, k, k], whose
    ``right`` is then [r, in * k * k]. ``delta`` and ``value`` are of any shape: norms, biases, embeddings.

    The forms with ``token`` act on the token, ``W_new c = W (c + D c)`` with ``D = token right``, so one and the same
    change serves every weight that reads the same text. Changes that share a tensor should hold the same one: it is
    then saved once. ``value`` is the new weight itself in its own type, bit for bit, as training leaves it; the other
    tensors are float64. All are on the CPU.
    """

    delta: Tensor | None = None
    left: Tensor | None = None
    right: Tensor | None = None
    token: Tensor | None = None
    value: Tensor | None = None

    def __post_init__(self) -> None:
        given = tuple(name for name in PARTS if getattr(self, name) is not None)
        if given not in (("delta",), ("left", "right"), ("right", "token"), ("token",), ("value",)):
            raise ValueError("a change is delta, or left and right, or token and right, or token alone, or value")
        for name in given:
            if getattr(self, name).ndim != 2 and name not in ("delta", "value"):
                raise ValueError(f"{name} is {list(getattr(self, name).shape)}; it must be a matrix")
        if self.right is not None:
            first = self._first
            if first.shape[1] != self.right.shape[0]:
                raise ValueError(f"factors do not fit: {list(first.shape)} and {list(self.right.shape)}")
        if self.token is not None:
            width = self.token.shape[1] if self.right is None else self.right.shape[1]
            if self.token.shape[0] != width:
                raise ValueError(f"a change of tokens maps a width to itself, not {self.token.shape[0]} to {width}")

    def __repr__(self) -> str:
        given = {name: getattr(self, name) for name in PARTS if getattr(self, name) is not None}
        return f"<Change {', '.join(f'{name} {list(tensor.shape)}' for name, tensor in given.items())}>"

    @property
    def _first(self) -> Tensor:
        """The tensor that every form has: all but ``right``."""
        return next(t for t in (self.delta, self.left, self.token, self.value) if t is not None)

    @property
    def acts_on_token(self) -> bool:
        """Whether it is a map of tokens, which fits every weight that reads them."""
        return self.token is not None

    @property
    def reads_weight(self) -> bool:
        """Whether what it adds depends on the weight that it meets, so that the order of several matters."""
        return self.token is not None or self.value is not None

    @property
    def rank(self) -> int:
        """Inner size of the factors; else the smaller side, an upper bound (a convolution counts as [out, in k k])."""
        if self.right is not None:
            return self.right.shape[0]
        whole = self._first
        return min(whole.shape[0], math.prod(whole.shape[1:])) if whole.ndim else 1

    @property
    def finite(self) -> bool:
        """Whether every number of it is finite."""
        return all(bool(torch.isfinite(t).all()) for t in self._tensors())

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it is a change of a weight of this shape."""
        if self.token is not None:
            return len(shape) == 2 and shape[1] == self.token.shape[0]
        if self.left is not None:
            flat = (shape[0], math.prod(shape[1:])) if len(shape) >= 2 else ()
            return flat == self.shape
        return tuple(shape) == self.shape

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of the weights it fits. ``out`` is None for a map of tokens, which fits any; with ``left`` and
        ``right`` a convolution counts as [out, in k k]."""
        if self.token is not None:
            return (None, self.token.shape[0])
        if self.left is not None and self.right is not None:
            return (self.left.shape[0], self.right.shape[1])
        return tuple(self._first.shape)

    @property
    def shown_shape(self) -> str:
        """:attr:`shape` for messages: ``[any, 24]``, ``[320, 4, 3, 3]``."""
        return f"[{', '.join('any' if size is None else str(size) for size in self.shape)}]"

    def of(self, weight: Tensor | None) -> Tensor:
        """The change of this weight, dense, in its shape, float64 on the CPU. Only ``token`` and ``value`` read it."""
        if self.delta is not None:
            return self.delta.double()
        if self.value is not None:
            return self.value.double() - _exact(weight)
        factors = self.factors(weight)
        if factors is not None:
            whole = factors[0] @ factors[1]
            return whole if weight is None else whole.reshape(weight.shape)
        return _exact(weight) @ self._first.double()

    def factors(self, weight: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """``[out, r]`` and ``[r, in]`` whose product is the change of this weight; None if the change is dense."""
        if self.right is None:
            return None
        left = self.left.double() if self.left is not None else _exact(weight) @ self._first.double()
        return left, self.right.double()

    def norm(self, weight: Tensor | None = None) -> float:
        """Frobenius norm of the change of a weight, which only ``token`` and ``value`` need to know."""
        factors = self.factors(weight)
        if factors is None:
            return torch.linalg.vector_norm(self.of(weight)).item()
        left, right = factors
        return ((left.T @ left) * (right @ right.T)).sum().clamp_min(0).sqrt().item()

    def add_to(self, weight: Tensor) -> tuple[float, float]:
        """Change a weight in place. Each number is computed in float64 and rounded once to the weight's type.

        A ``value`` of the weight's own type is there bit for bit afterwards.

        Returns:
            The sums of squares of what rounding to the weight's type took or added, and of the change; zeros for
            types of 32 bits and more, where it is not looked at.
        """
        lost = size = 0.0
        measured = weight.element_size() < 4
        # A weight without dimensions is one part; a part is looked at as rows, whatever its dimensions.
        for start in range(0, weight.shape[0] if weight.ndim else 1, WEIGHT_ROWS_AT_ONCE):
            rows = slice(start, start + WEIGHT_ROWS_AT_ONCE) if weight.ndim else ...
            part = weight[rows]
            old = part.detach().to("cpu", torch.float64, copy=True)
            if self.value is not None:
                new = self.value[rows].double()
            elif self.delta is not None:
                new = old + self.delta[rows]
            elif self.left is not None and self.right is not None:
                flat = torch.addmm(old.flatten(1), self.left[rows].double(), self.right.double())
                new = flat.reshape(old.shape)
            elif self.right is not None:
                thin = (self._first.double().T @ old.T).T  # a third faster than old @ token, which is as thin as tall
                new = torch.addmm(old, thin, self.right.double())
            else:
                new = old + old @ self._first.double()
            part.copy_(new if self.value is None else self.value[rows])
            if measured:
                size += (new - old).square().sum().item()
                lost += (_exact(part) - new).square().sum().item()
        return lost, size

    def rows(self, tokens: Tensor) -> Tensor:
        """What a map of tokens adds to each: ``D c`` of the rows of ``[n, in]``.

        Raises:
            ValueError: it is no map of tokens.
        """
        if self.token is None:
            raise ValueError("only a change in token form maps tokens")
        tokens = tokens.double()
        return tokens @ self.token.T if self.right is None else (tokens @ self.right.T) @ self.token.T

    def plus(self, other: Change) -> Change:
        """The sum of two changes of the same weight, each made for the weight as it was."""
        if self.acts_on_token != other.acts_on_token or self.value is not None or other.value is not None:
            raise ValueError("changes of which one reads the weight have no sum without the weight: use at()")
        if self.right is None or other.right is None:
            name = "token" if self.acts_on_token else "delta"
            one, two = self._whole(), other._whole()
            shape = max(one.shape, two.shape, key=len)  # factors of a convolution know only its rows
            return Change(**{name: one.reshape(shape) + two.reshape(shape)})
        name = "token" if self.acts_on_token else "left"
        first = torch.cat([getattr(self, name).double(), getattr(other, name).double()], dim=1)
        return Change(**{name: first, "right": torch.cat([self.right.double(), other.right.double()])})

    def then(self, other: Change) -> Change:
        """This change and then another one, made for the changed weight: ``W (I + D1) (I + D2)`` for maps of tokens,
        the second for new weights."""
        if other.value is not None:
            return other
        if not other.acts_on_token:
            return self.plus(other)
        if not self.acts_on_token:
            # (W + X) (I + D) = W + X + W D + X D needs W for its last but one term only if X is additive.
            raise ValueError("a map of tokens after a change of one weight needs the weight: use at()")
        moved = self._map(other)
        if self.right is not None and other.right is not None:
            token = torch.cat([self._first.double(), moved], dim=1)
            return Change(token=token, right=torch.cat([self.right.double(), other.right.double()]))
        return Change(token=self._whole() + (moved if other.right is None else moved @ other.right.double()))

    def at(self, weight: Tensor) -> Change:
        """The same change in a form that no longer needs the weight: ``left, right`` or ``delta``."""
        if not self.reads_weight:
            return self
        factors = self.factors(weight)
        return Change(delta=self.of(weight)) if factors is None else Change(left=factors[0], right=factors[1])

    def _map(self, other: Change) -> Tensor:
        """``(I + D) token`` of another map of tokens."""
        token = other._first.double()
        inner = token if self.right is None else self.right.double() @ token
        return token + self._first.double() @ inner

    def _whole(self) -> Tensor:
        first = self._first.double()
        return first if self.right is None else first @ self.right.double()

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, name) for name in PARTS if getattr(self, name) is not None]


def _exact(weight: Tensor | None) -> Tensor:
    if weight is None:
        raise ValueError("this change reads the weight that it changes; give it")
    return weight.detach().to("cpu", torch.float64)


def add_tensor(total: Any, name: str, tensor: Tensor) -> None:
    """Let a hash of :mod:`hashlib` know a tensor: its name, type, shape and every bit."""
    total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
    total.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
