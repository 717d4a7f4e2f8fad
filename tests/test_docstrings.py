"""What a class says of its arguments is what it takes; of functions ruff checks the same."""

import inspect
import re

import pytest
from test_public_surface import all_modules


def documented(text):
    """Names under ``Args:``."""
    section = re.search(r"^( *)Args:\n((?:\1 +.*\n|\n)+)", inspect.cleandoc(text) + "\n", re.MULTILINE)
    if section is None:
        return []
    depth = re.match(r" *", section[2])[0]
    return re.findall(rf"^{depth}(\w+): ", section[2], re.MULTILINE)


def described_classes():
    found = {
        thing
        for module in all_modules()
        for thing in vars(module).values()
        if isinstance(thing, type) and thing.__module__ == module.__name__ and "Args:" in (thing.__doc__ or "")
    }
    return sorted(found, key=lambda kind: kind.__qualname__)


@pytest.mark.parametrize("kind", described_classes(), ids=lambda kind: kind.__qualname__)
def test_its_arguments_are_those_it_takes(kind):
    taken = {name for name in inspect.signature(kind).parameters if not name.startswith("_")}
    said, inherited = (
        documented(kind.__doc__),
        {name for one in kind.__mro__[1:] for name in documented(one.__doc__ or "")},
    )
    assert len(said) == len(set(said))
    assert set(said) <= taken
    assert taken <= {*said, *inherited}


def test_names_are_found_under_args_alone():
    text = """What.

    Args:
        one: first: of all.
            two: no argument.
        three: the last.

    Raises:
        ValueError: four.
    """
    assert documented(text) == ["one", "three"]
    assert documented("What.") == []
