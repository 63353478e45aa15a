"""The acquisition loop.

`rounds` has the pure functions from state to state; the `driver` times them on the host,
`over_devices` has several trials on several devices.
"""

from bbald_jax.loop.driver import Seconds as Seconds
from bbald_jax.loop.driver import run as run
from bbald_jax.loop.driver import run_together as run_together
from bbald_jax.loop.over_devices import run_over_devices as run_over_devices
from bbald_jax.loop.rounds import Data as Data
from bbald_jax.loop.rounds import Evaluation as Evaluation
from bbald_jax.loop.rounds import Loop as Loop
from bbald_jax.loop.rounds import LoopState as LoopState
from bbald_jax.loop.rounds import Round as Round
from bbald_jax.loop.rounds import ask as ask
from bbald_jax.loop.rounds import evaluate as evaluate
from bbald_jax.loop.rounds import fit as fit
from bbald_jax.loop.rounds import fit_arguments as fit_arguments
from bbald_jax.loop.rounds import init as init
from bbald_jax.loop.rounds import keep as keep
from bbald_jax.loop.rounds import oracle as oracle
from bbald_jax.loop.rounds import predict as predict
from bbald_jax.loop.rounds import step as step
from bbald_jax.loop.rounds import tell as tell
