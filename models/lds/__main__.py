"""``python -m models.lds [mlp cnn gcn denoiser deep]``: one table of every method's linear datamodelling score."""

import typer

from models.lds.experiment import section
from models.lds.settings import SETTINGS


def main(names: list[str] = typer.Argument(None, help=f"some of {', '.join(SETTINGS)}; all when left out")) -> None:  # noqa: B008
    """Train on subsets what is missing, score by every method, print the table.

    Raises:
        BadParameter: a setting that there is not.
    """
    if unknown := [name for name in names or [] if name not in SETTINGS]:
        raise typer.BadParameter(f"{', '.join(unknown)}: one of {', '.join(SETTINGS)}")
    print(section(names))


if __name__ == "__main__":
    typer.run(main)
