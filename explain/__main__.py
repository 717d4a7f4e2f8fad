"""``python -m explain``: the command line, as the console script ``explain``."""

from explain.cli import app

if __name__ == "__main__":
    app(prog_name="explain")
