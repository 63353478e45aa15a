"""`bbald` and `python -m bbald_jax`: the command line, or one line on what it lacks."""

import sys

_EXTRA = ("click", "matplotlib", "orbax", "pooch", "rich", "safetensors", "sklearn", "tqdm")


def main() -> None:
    """Start the command line."""
    try:
        from bbald_jax.cli import main as command_line

        command_line(prog_name="bbald")
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in _EXTRA:
            raise
        sys.exit(f'bbald: no module {error.name!r}; run: pip install "bbald_jax[experiments]"')


if __name__ == "__main__":
    main()
