"""The command line: `bbald` and its commands."""

import click

from bbald_jax.cli.acquisitions_command import acquisitions
from bbald_jax.cli.compare_command import compare
from bbald_jax.cli.run_command import run
from bbald_jax.cli.select_command import select


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="bbald_jax")
def main() -> None:
    """Batch Bayesian active learning in JAX."""


for _command in (run, compare, select, acquisitions):
    main.add_command(_command)
