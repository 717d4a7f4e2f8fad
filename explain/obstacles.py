"""Why torch could not trace a function, or run it for many rows at once, in a few words of what the function does."""

from __future__ import annotations

import re
import textwrap

_KNOWN = {
    r"called \.item\(\)|calling \.item\(\)|(float|int)\(\) argument must be|not '?Proxy|interpreted as an integer": (
        "a number is read out of a tensor or its shape"
    ),
    r"data pointer of Tensor|__cuda_array_interface__": "a tensor is taken out of torch (numpy, tolist)",
    r"data-dependent control flow|inputs to control flow": "a branch depends on a tensor or its shape",
    r"'len' is not supported": "the length of a tensor is asked for",
    r"Proxy object cannot be iterated": "a tensor or a shape is looped over or unpacked",
    r"dynamic shape": "the size of a result depends on the numbers in a tensor (a mask, unique)",
    r"in randomness error mode": "random numbers are drawn",
    r"[Bb]atching rule not implemented for aten::(\w+)": "{} has no rule for many rows at once",
    r"override the setup_context": "an autograd.Function without setup_context is called",
}
_ENDS = r"(?<=[.!?])\s|\n|[,;:]?\s*\(?(?i:please |see the |for more |https?://)"  # of what was wrong: advice follows


def obstacle(error: BaseException) -> str:
    """What stood in the way: in words of our own where torch says it of itself, else the error's first sentence.

    >>> obstacle(RuntimeError("'len' is not supported in symbolic tracing by default. If you want this call to be"))
    'the length of a tensor is asked for'
    >>> obstacle(ValueError("no such class. See the manual"))
    'ValueError: no such class'
    """
    while error.__cause__ is not None:  # the operation's own words, before anyone read the shape of an input into them
        error = error.__cause__
    said = str(error)
    for pattern, reason in _KNOWN.items():
        if found := re.search(pattern, said):
            return reason.format(*found.groups())
    first = textwrap.shorten(re.split(_ENDS, said)[0], 200, placeholder=" ...").rstrip(".:,; ")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
