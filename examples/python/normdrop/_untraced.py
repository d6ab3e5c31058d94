"""Functions that `torch.compile` leaves as they are."""

import functools
import sys
from typing import TypeVar

F = TypeVar("F")


def untraced(function: F) -> F:
    """A function that `torch.compile` calls instead of tracing it.

    The compiler would follow the Python code of this package and make tensors of the arrays in it: it frees an array once
    no traced variable needs it, though C has its address, and makes equal new arrays one. `torch.compiler.disable` prevents
    that, but a decorator would need PyTorch, which this package does without. So the call asks for it, if a compiler is
    loaded by then.
    """
    chosen = _Chosen(function)

    @functools.wraps(function)
    def call(*arguments, **named):
        return chosen.function(*arguments, **named)

    # The compiler's own mark: it ends its graph before it calls such a function. The frame of `call` is a new beginning for
    # it, so the property in there has the mark, too, and the compiler leaves that frame to Python.
    call._torchdynamo_disable = True
    call._torchdynamo_disable_msg = "it gives C the addresses of arrays"
    return call


class _Chosen:
    """A function as it is or, for a compiler, disabled."""

    def __init__(self, function):
        self.plain, self.disabled = function, None

    def _function(self):
        if "torch._dynamo" not in sys.modules:
            return self.plain
        if self.disabled is None:
            self.disabled = sys.modules["torch"].compiler.disable(self.plain)
        return self.disabled

    _function._torchdynamo_disable = True
    function = property(_function)
