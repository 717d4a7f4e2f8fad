"""What is installed: all of `explain`, and nothing that would take a name of its users' own, such as `models`."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from fnmatch import fnmatch
from pathlib import Path

from setuptools.config.pyprojecttoml import read_configuration

ROOT = Path(__file__).parents[1]
CONFIGURATION = read_configuration(ROOT / "pyproject.toml")
PROJECT, SETTINGS = CONFIGURATION["project"], CONFIGURATION["tool"]["setuptools"]
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


def test_a_wheel_works_where_nothing_else_of_the_project_is(tmp_path):
    """Built from the files of the project, installed into an empty environment; the libraries are those of this one."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "explain", source / "explain", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source], tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(PROJECT["name"].replace("-", "_"))
    venv.create(tmp_path / "empty", with_pip=False)
    python = tmp_path / "empty" / "bin" / "python"
    run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], tmp_path)
    # a path is no site: what is installed there for development stays unseen
    told = run([python, "-c", ASKED], tmp_path, PYTHONPATH=sysconfig.get_path("purelib"))
    where, version, name, size = told.splitlines()
    assert Path(where).is_relative_to(tmp_path / "empty")
    assert version == PROJECT["version"]
    assert (name, int(size) > 1000) == ("Shapley", True)
    said = run([python.with_name("explain"), "--version"], tmp_path, PYTHONPATH=sysconfig.get_path("purelib"))
    assert said.startswith("python ")
    assert f"explain {PROJECT['version']}\n" in said


ASKED = """
import torch, explain
why = explain.Shapley("features").explain(explain.wrap(torch.nn.Linear(2, 1), task="regression").example(torch.ones(2)))
page = explain.report.write(why, "why.html")
print(explain.__file__, why.versions["explain"], why.method, page.stat().st_size, sep="\\n")
"""


def run(command, folder, **environment):
    asked = [str(part) for part in command]
    ran = subprocess.run(
        asked, cwd=folder, env=os.environ | environment, capture_output=True, text=True, encoding="utf-8", timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
