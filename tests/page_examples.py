"""Examples of the README and its pages, as a reader would run them."""

import re

import torch


def examples(text):
    """The blocks of Python in a page."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def shown(example, capsys):
    """What an example prints, run here: every warning is an error, and importing torch anew is most of its time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(example, "a page", "exec"), {})
    return capsys.readouterr().out
