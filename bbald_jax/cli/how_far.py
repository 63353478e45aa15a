"""How far a selection is that reads its predictions piece by piece."""

import time

import click

from bbald_jax.acquisition.passes import StreamProgress

# Seconds between two lines.
_EVERY = 2.0
_GB = 1e9


class HowFar:
    """A line on the standard error every two seconds: the pass, gigabytes, the time it will take.

    Args:
      num_bytes: of all predictions.
    """

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._num_pass, self._began, self._said = 0, 0.0, 0.0

    def __call__(self, progress: StreamProgress) -> None:
        """See `select_stream`."""
        now = time.monotonic()
        if progress.num_pass != self._num_pass:
            self._num_pass, self._began, self._said = progress.num_pass, now, now
            click.echo(
                f"pass {progress.num_pass}: reading {self._num_bytes / _GB:.1f} GB piece by piece",
                err=True,
            )
        is_over = progress.num_read == progress.num_points
        if now - self._said < _EVERY and not (is_over and now - self._began >= _EVERY):
            return
        self._said = now
        share = progress.num_read / progress.num_points
        left = (now - self._began) * (1 / share - 1)
        click.echo(
            f"pass {progress.num_pass}: {share * self._num_bytes / _GB:.1f} of "
            f"{self._num_bytes / _GB:.1f} GB, {left:.0f} s left",
            err=True,
        )
