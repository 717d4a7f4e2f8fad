"""What is installed: all of `explain`, and nothing that would take a name of its users' own, such as `models`."""

from fnmatch import fnmatch
from pathlib import Path

from setuptools.config.pyprojecttoml import read_configuration

ROOT = Path(__file__).parents[1]
SETTINGS = read_configuration(ROOT / "pyproject.toml")["tool"]["setuptools"]
PACKAGES = set(SETTINGS["packages"])


def folder(package):
    return ROOT.joinpath(*package.split("."))


def test_explain_is_the_only_name_that_is_installed():
    assert {package.split(".")[0] for package in PACKAGES} == {"explain"}
    assert {"models", "tests", "notebooks"} <= {found.name for found in ROOT.iterdir()}  # and there were others


def test_no_file_is_left_behind():
    """Not the code of a folder without ``__init__.py``, nor the page that a report is made from."""
    for path in sorted((ROOT / "explain").rglob("*")):
        if path.suffix == ".py":
            assert ".".join(path.parent.relative_to(ROOT).parts) in PACKAGES, path
        elif path.is_file() and path.suffix not in (".pyc", ".md"):
            name = str(path.relative_to(ROOT / "explain"))
            assert any(fnmatch(name, pattern) for pattern in SETTINGS["package-data"]["explain"]), path


def test_every_package_is_there():
    for package in PACKAGES:
        assert (folder(package) / "__init__.py").is_file()
