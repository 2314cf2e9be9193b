"""The change of one weight, as a value: dense, low-rank, or a map of the tokens that the weight reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WEIGHT_ROWS_AT_ONCE = 320
"""Rows of a weight that are worked on at a time: a float64 copy of them stays in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Change:
    """The change of one weight W ``[out, in]``, in one of four forms.

    ===================  ==========================  =====================================================
    fields               shapes                      the weight becomes
    ===================  ==========================  =====================================================
    ``delta``            [out, in]                   W + delta
    ``left``, ``right``  [out, r], [r, in]           W + left right
    ``token``, ``right`` [in, r], [r, in]            W + W token right
    ``token``            [in, in]                    W + W token
    ===================  ==========================  =====================================================

    The last two act on the token, ``W_new c = W (c + D c)`` with ``D = token right``, so one and the same change
    serves every weight that reads the same text. Changes that share a tensor should hold the same one: it is then
    saved once. Tensors are float64 on the CPU.
    """

    delta: Tensor | None = None
    left: Tensor | None = None
    right: Tensor | None = None
    token: Tensor | None = None

    def __post_init__(self) -> None:
        given = tuple(name for name in ("delta", "left", "right", "token") if getattr(self, name) is not None)
        if given not in (("delta",), ("left", "right"), ("right", "token"), ("token",)):
            raise ValueError("a change is either delta, or left and right, or token and right, or token alone")
        if self.right is not None:
            first = self.left if self.left is not None else self.token
            if first.shape[1] != self.right.shape[0]:
                raise ValueError(f"factors do not fit: {list(first.shape)} and {list(self.right.shape)}")
        if self.token is not None:
            width = self.token.shape[1] if self.right is None else self.right.shape[1]
            if self.token.shape[0] != width:
                raise ValueError(f"a change of tokens maps a width to itself, not {self.token.shape[0]} to {width}")

    @property
    def acts_on_token(self) -> bool:
        """Whether it is a map of tokens, which fits every weight that reads them."""
        return self.token is not None

    @property
    def rank(self) -> int:
        """Inner size of the factors; for a dense change the smaller side (an upper bound)."""
        if self.right is not None:
            return self.right.shape[0]
        return min((self.delta if self.delta is not None else self.token).shape)

    @property
    def finite(self) -> bool:
        """Whether every number of it is finite."""
        return all(bool(torch.isfinite(t).all()) for t in self._tensors())

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it is a change of a weight of this shape."""
        if len(shape) != 2:
            return False
        if self.acts_on_token:
            return shape[1] == self.token.shape[0]
        return tuple(shape) == self.shape

    @property
    def shape(self) -> tuple[int | None, int]:
        """``(out, in)`` of the weights it fits; ``out`` is None for a map of tokens, which fits any."""
        if self.acts_on_token:
            return (None, self.token.shape[0])
        if self.delta is not None:
            return tuple(self.delta.shape)
        return (self.left.shape[0], self.right.shape[1])

    def of(self, weight: Tensor | None) -> Tensor:
        """The change of this weight, dense, ``[out, in]`` float64 on the CPU."""
        if self.delta is not None:
            return self.delta.double()
        factors = self.factors(weight)
        if factors is not None:
            return factors[0] @ factors[1]
        return _exact(weight) @ self.token.double()

    def factors(self, weight: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """``[out, r]`` and ``[r, in]`` whose product is the change of this weight; None if the change is dense."""
        if self.right is None:
            return None
        left = self.left.double() if self.left is not None else _exact(weight) @ self.token.double()
        return left, self.right.double()

    def norm(self, weight: Tensor | None = None) -> float:
        """Frobenius norm of the change of a weight, which only a map of tokens needs to know."""
        factors = self.factors(weight)
        if factors is None:
            return torch.linalg.norm(self.of(weight)).item()
        left, right = factors
        return ((left.T @ left) * (right @ right.T)).sum().clamp_min(0).sqrt().item()

    def add_to(self, weight: Tensor) -> tuple[float, float]:
        """Change a weight in place. Each number is computed in float64 and rounded once to the weight's type.

        Returns:
            The sums of squares of what rounding to the weight's type took or added, and of the change; zeros for
            types of 32 bits and more, where it is not looked at.
        """
        lost = size = 0.0
        measured = weight.element_size() < 4
        for start in range(0, weight.shape[0], WEIGHT_ROWS_AT_ONCE):
            part = weight[start : start + WEIGHT_ROWS_AT_ONCE]
            new = part.detach().to("cpu", torch.float64, copy=True)
            if self.delta is not None:
                new += self.delta[start : start + WEIGHT_ROWS_AT_ONCE]
            elif self.left is not None:
                new.addmm_(self.left[start : start + WEIGHT_ROWS_AT_ONCE].double(), self.right.double())
            elif self.right is not None:
                thin = (
                    self.token.double().T @ new.T
                ).T  # a third faster than new @ token, which is as thin as it is tall
                new.addmm_(thin, self.right.double())
            else:
                new += new @ self.token.double()
            if measured:
                size += (new - _exact(part)).square().sum().item()
            part.copy_(new)
            if measured:
                lost += (_exact(part) - new).square().sum().item()
        return lost, size

    def rows(self, tokens: Tensor) -> Tensor:
        """What a map of tokens adds to each: ``D c`` of the rows of ``[n, in]``.

        Raises:
            ValueError: it is no map of tokens.
        """
        if not self.acts_on_token:
            raise ValueError("only a change in token form maps tokens")
        tokens = tokens.double()
        return tokens @ self.token.T if self.right is None else (tokens @ self.right.T) @ self.token.T

    def plus(self, other: Change) -> Change:
        """The sum of two changes of the same weight, each made for the weight as it was."""
        if self.acts_on_token != other.acts_on_token:
            raise ValueError("a map of tokens and a change of one weight have no sum without the weight: use at()")
        if self.right is None or other.right is None:
            name = "token" if self.acts_on_token else "delta"
            return Change(**{name: self._whole() + other._whole()})
        name = "token" if self.acts_on_token else "left"
        first = torch.cat([getattr(self, name).double(), getattr(other, name).double()], dim=1)
        return Change(**{name: first, "right": torch.cat([self.right.double(), other.right.double()])})

    def then(self, other: Change) -> Change:
        """This change and then another one, made for the changed weight: ``W (I + D1) (I + D2)`` for maps of tokens."""
        if not other.acts_on_token:
            return self.plus(other)
        if not self.acts_on_token:
            # (W + X) (I + D) = W + X + W D + X D needs W for its last but one term only if X is additive.
            raise ValueError("a map of tokens after a change of one weight needs the weight: use at()")
        moved = self._map(other)
        if self.right is not None and other.right is not None:
            token = torch.cat([self.token.double(), moved], dim=1)
            return Change(token=token, right=torch.cat([self.right.double(), other.right.double()]))
        return Change(token=self._whole() + (moved if other.right is None else moved @ other.right.double()))

    def at(self, weight: Tensor) -> Change:
        """The same change in a form that no longer needs the weight: ``left, right`` or ``delta``."""
        if not self.acts_on_token:
            return self
        factors = self.factors(weight)
        return Change(delta=self.of(weight)) if factors is None else Change(left=factors[0], right=factors[1])

    def _map(self, other: Change) -> Tensor:
        """``(I + D) token`` of another map of tokens."""
        token = other.token.double()
        inner = token if self.right is None else self.right.double() @ token
        return token + self.token.double() @ inner

    def _whole(self) -> Tensor:
        first = next(t for t in (self.delta, self.left, self.token) if t is not None).double()
        return first if self.right is None else first @ self.right.double()

    def _tensors(self) -> list[Tensor]:
        return [t for t in (self.delta, self.left, self.right, self.token) if t is not None]


def _exact(weight: Tensor) -> Tensor:
    return weight.detach().to("cpu", torch.float64)
