"""How a network is fitted, as data: the paper's protocol, and what needs fewer labels."""

from typing import NamedTuple

from bbald_jax.learning.augmentation import Augmentation


class Recipe(NamedTuple):
    """How a network is fitted: Adam, on minibatches drawn with replacement.

    After every epoch the accuracy on the validation points is measured; training stops when it
    has not risen for `patience` epochs, and the best parameters are restored. Without validation
    points it runs for `max_epochs`.

    Attributes:
      name: as on the command line.
      batch_size: examples in a minibatch.
      learning_rate: of Adam.
      steps_per_epoch: minibatches between two looks at the validation points.
      max_epochs: at most so many.
      patience: epochs without improvement until it stops.
      num_validation: labelled points set apart for early stopping, where the data set can spare
        them.
      augmentation: random deformations of the images of every minibatch; None for none.
      ema_decay: the result is the exponential moving average of the parameters over the steps,
        with this decay; 0 is the last step's.
      warm_start: go on from the parameters of the round before, instead of new ones; Adam and the
        average start anew.
    """

    name: str
    batch_size: int = 64
    learning_rate: float = 1e-3
    steps_per_epoch: int = 79
    max_epochs: int = 30
    patience: int = 3
    num_validation: int = 1024
    augmentation: Augmentation | None = None
    ema_decay: float = 0.0
    warm_start: bool = False


#: The BatchBALD paper's protocol for MNIST: an epoch is 5,056 draws (79 minibatches of 64).
#: Source: Kirsch, van Amersfoort, Gal (2019), section 4.2 and their published code.
PAPER = Recipe("paper")

#: Fewer labels: small deformations, a fixed number of steps, and no labels for validation. What
#: decided each is in `experiments/README.md`.
AUGMENTED = Recipe(
    "augmented",
    batch_size=32,
    steps_per_epoch=2212,
    max_epochs=1,
    num_validation=0,
    augmentation=Augmentation(shift=2 / 28, rotation=0.2, scale=0.1, shear=0.15, elastic=1 / 28),
    ema_decay=0.995,
)

#: The same, from the parameters of the round before, with two sevenths of the steps.
AUGMENTED_WARM = AUGMENTED._replace(name="augmented-warm", steps_per_epoch=632, warm_start=True)

RECIPES = {recipe.name: recipe for recipe in (PAPER, AUGMENTED, AUGMENTED_WARM)}
