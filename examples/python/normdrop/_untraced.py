"""Functions that `torch.compile` leaves as they are."""

from __future__ import annotations

import functools
import sys
from typing import Any, Callable, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def untraced(function: F) -> F:
    """A function that `torch.compile` calls instead of tracing it.

    The compiler would follow the Python code of this package and make tensors of the arrays in it: it frees an array once
    no traced variable needs it, though C has its address, and makes equal new arrays one. `torch.compiler.disable` prevents
    that, but a decorator would need PyTorch, which this package does without. So the call asks for it, if a compiler is
    loaded by then.
    """
    chosen = _Chosen(function)

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        return chosen.function(*arguments, **named)

    # The compiler's own mark: it ends its graph before it calls such a function. The frame of `call` is a new beginning for
    # it, so the property in there has the mark, too, and the compiler leaves that frame to Python.
    vars(call).update(_torchdynamo_disable=True, _torchdynamo_disable_msg="it gives C the addresses of arrays")
    return cast(F, call)


class _Chosen:
    """A function as it is or, for a compiler, disabled."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.plain = function
        self.disabled: Callable[..., Any] | None = None

    def _function(self) -> Callable[..., Any]:
        if "torch._dynamo" not in sys.modules:
            return self.plain
        if self.disabled is None:
            self.disabled = sys.modules["torch"].compiler.disable(self.plain)
        return self.disabled

    vars(_function).update(_torchdynamo_disable=True)
    function = property(_function)
