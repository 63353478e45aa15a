"""Batch Bayesian active learning in pure JAX.

The scoring half (entropies, acquisition functions, selection) knows arrays and keys; the learning
half (models, training, the loop) knows networks. Each name is loaded when it is first used, so that
`import bbald_jax` takes no time, and scoring loads neither flax nor optax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bbald_jax import loop as loop
    from bbald_jax import pool as pool
    from bbald_jax.acquisition.badge import select_badge as select_badge
    from bbald_jax.acquisition.bait import select_bait as select_bait
    from bbald_jax.acquisition.batch_epig import select_batch_epig as select_batch_epig
    from bbald_jax.acquisition.batchbald import select_batchbald as select_batchbald
    from bbald_jax.acquisition.closed_forms import (
        select_batch_epig_closed as select_batch_epig_closed,
    )
    from bbald_jax.acquisition.closed_forms import (
        select_gaussian_batchbald_closed as select_gaussian_batchbald_closed,
    )
    from bbald_jax.acquisition.coreset import select_coreset as select_coreset
    from bbald_jax.acquisition.functions import catalogue as catalogue
    from bbald_jax.acquisition.gaussian_batchbald import (
        select_gaussian_batchbald as select_gaussian_batchbald,
    )
    from bbald_jax.acquisition.inputs import Acquisition as Acquisition
    from bbald_jax.acquisition.inputs import Inputs as Inputs
    from bbald_jax.acquisition.kbald import select_kbald as select_kbald
    from bbald_jax.acquisition.placing import ShardedPool as ShardedPool
    from bbald_jax.acquisition.placing import shard_pool as shard_pool
    from bbald_jax.acquisition.pointwise import epig as epig
    from bbald_jax.acquisition.pointwise import margin as margin
    from bbald_jax.acquisition.pointwise import mean_std as mean_std
    from bbald_jax.acquisition.pointwise import variation_ratio as variation_ratio
    from bbald_jax.acquisition.selection import Selection as Selection
    from bbald_jax.acquisition.selection import select as select
    from bbald_jax.acquisition.sharded import select_sharded as select_sharded
    from bbald_jax.acquisition.stochastic import perturb_power as perturb_power
    from bbald_jax.acquisition.stochastic import perturb_softmax as perturb_softmax
    from bbald_jax.acquisition.stochastic import perturb_softrank as perturb_softrank
    from bbald_jax.acquisition.streamed import select_stream as select_stream
    from bbald_jax.acquisition.top import select_bald as select_bald
    from bbald_jax.acquisition.top import select_random as select_random
    from bbald_jax.acquisition.top import select_top as select_top
    from bbald_jax.acquisition.top import without_pending as without_pending
    from bbald_jax.acquisition.typiclust import select_typiclust as select_typiclust
    from bbald_jax.experiment import datasets as datasets
    from bbald_jax.information.entropy import conditional_entropy as conditional_entropy
    from bbald_jax.information.entropy import mutual_information as mutual_information
    from bbald_jax.information.entropy import predictive_entropy as predictive_entropy
    from bbald_jax.information.gaussian import GaussianPosterior as GaussianPosterior
    from bbald_jax.information.gaussian import (
        gaussian_joint_mutual_information as gaussian_joint_mutual_information,
    )
    from bbald_jax.information.joint import (
        estimate_joint_mutual_information as estimate_joint_mutual_information,
    )
    from bbald_jax.information.joint import joint_entropy as joint_entropy
    from bbald_jax.information.joint import joint_mutual_information as joint_mutual_information
    from bbald_jax.labelling.audit import AccuracyEstimate as AccuracyEstimate
    from bbald_jax.labelling.audit import estimate_accuracy as estimate_accuracy
    from bbald_jax.labelling.draws import Audit as Audit
    from bbald_jax.labelling.draws import AuditSettings as AuditSettings
    from bbald_jax.labelling.draws import Draw as Draw
    from bbald_jax.labelling.draws import answer_audit as answer_audit
    from bbald_jax.labelling.draws import draw_for_audit as draw_for_audit
    from bbald_jax.labelling.draws import start_audit as start_audit
    from bbald_jax.labelling.session import Session as Session
    from bbald_jax.labelling.session_audit import SessionAudit as SessionAudit
    from bbald_jax.labelling.stopping import Agreement as Agreement
    from bbald_jax.labelling.stopping import StoppingAdvice as StoppingAdvice
    from bbald_jax.labelling.stopping import advise_stopping as advise_stopping
    from bbald_jax.labelling.stopping import predictions_agreement as predictions_agreement
    from bbald_jax.learning.augmentation import Augmentation as Augmentation
    from bbald_jax.learning.convolution import Conv as Conv
    from bbald_jax.learning.convolution import max_pool as max_pool
    from bbald_jax.learning.ensemble import ensemble_learner as ensemble_learner
    from bbald_jax.learning.equinox_modules import equinox_model as equinox_model
    from bbald_jax.learning.flax_nnx import nnx_model as nnx_model
    from bbald_jax.learning.forest import sample_forest as sample_forest
    from bbald_jax.learning.graph_embedding import graph_features as graph_features
    from bbald_jax.learning.head import logistic_head as logistic_head
    from bbald_jax.learning.image_embedding import image_features as image_features
    from bbald_jax.learning.learner import Learner as Learner
    from bbald_jax.learning.linen import FactoredModule as FactoredModule
    from bbald_jax.learning.linen import flax_model as flax_model
    from bbald_jax.learning.mc_dropout import sample_mc_dropout as sample_mc_dropout
    from bbald_jax.learning.model import Model as Model
    from bbald_jax.learning.networks import MLP as MLP
    from bbald_jax.learning.networks import PaperCNN as PaperCNN
    from bbald_jax.learning.recipes import AUGMENTED as AUGMENTED
    from bbald_jax.learning.recipes import PAPER as PAPER
    from bbald_jax.learning.recipes import Recipe as Recipe
    from bbald_jax.learning.sharded_sampling import sample_sharded as sample_sharded
    from bbald_jax.learning.text_embedding import text_features as text_features
    from bbald_jax.learning.torch_sampling import sample_torch as sample_torch
    from bbald_jax.learning.training import mc_dropout_learner as mc_dropout_learner
    from bbald_jax.sources import Lazy as Lazy
    from bbald_jax.sources import open_source as open_source
    from bbald_jax.typing import BatchBALDDiagnostics as BatchBALDDiagnostics
    from bbald_jax.typing import CandidateBatch as CandidateBatch
    from bbald_jax.typing import Diagnostics as Diagnostics
    from bbald_jax.validation import check_log_probs as check_log_probs
    from bbald_jax.validation import from_logits as from_logits
    from bbald_jax.validation import from_probs as from_probs

__version__ = "0.1.0"

# Where each public name lives; a module's own name stands for the module. Nothing is loaded before
# it is used: the command line must be ready for Ctrl-C while jax is still on its way.
_LAZY = {
    "select_batchbald": "acquisition.batchbald",
    "select_badge": "acquisition.badge",
    "select_bait": "acquisition.bait",
    "select_batch_epig": "acquisition.batch_epig",
    **dict.fromkeys(
        ("select_batch_epig_closed", "select_gaussian_batchbald_closed"),
        "acquisition.closed_forms",
    ),
    "select_gaussian_batchbald": "acquisition.gaussian_batchbald",
    **dict.fromkeys(
        ("GaussianPosterior", "gaussian_joint_mutual_information"), "information.gaussian"
    ),
    "select_coreset": "acquisition.coreset",
    "catalogue": "acquisition.functions",
    **dict.fromkeys(("Acquisition", "Inputs"), "acquisition.inputs"),
    "select_kbald": "acquisition.kbald",
    **dict.fromkeys(("epig", "margin", "mean_std", "variation_ratio"), "acquisition.pointwise"),
    **dict.fromkeys(("Selection", "select"), "acquisition.selection"),
    **dict.fromkeys(("ShardedPool", "shard_pool"), "acquisition.placing"),
    "select_sharded": "acquisition.sharded",
    **dict.fromkeys(
        ("perturb_power", "perturb_softmax", "perturb_softrank"), "acquisition.stochastic"
    ),
    **dict.fromkeys(
        ("select_bald", "select_random", "select_top", "without_pending"), "acquisition.top"
    ),
    "select_stream": "acquisition.streamed",
    "select_typiclust": "acquisition.typiclust",
    **dict.fromkeys(
        ("conditional_entropy", "mutual_information", "predictive_entropy"), "information.entropy"
    ),
    **dict.fromkeys(
        ("estimate_joint_mutual_information", "joint_entropy", "joint_mutual_information"),
        "information.joint",
    ),
    **dict.fromkeys(
        ("AccuracyEstimate", "estimate_accuracy"),
        "labelling.audit",
    ),
    **dict.fromkeys(
        ("Audit", "AuditSettings", "Draw", "answer_audit", "draw_for_audit", "start_audit"),
        "labelling.draws",
    ),
    "Session": "labelling.session",
    "SessionAudit": "labelling.session_audit",
    **dict.fromkeys(
        ("Agreement", "StoppingAdvice", "advise_stopping", "predictions_agreement"),
        "labelling.stopping",
    ),
    **dict.fromkeys(("Lazy", "open_source"), "sources"),
    **dict.fromkeys(("BatchBALDDiagnostics", "CandidateBatch", "Diagnostics"), "typing"),
    **dict.fromkeys(("check_log_probs", "from_logits", "from_probs"), "validation"),
    "Augmentation": "learning.augmentation",
    **dict.fromkeys(("Conv", "max_pool"), "learning.convolution"),
    **dict.fromkeys(("FactoredModule", "flax_model"), "learning.linen"),
    **dict.fromkeys(("MLP", "PaperCNN"), "learning.networks"),
    **dict.fromkeys(("AUGMENTED", "PAPER", "Recipe"), "learning.recipes"),
    "Learner": "learning.learner",
    "Model": "learning.model",
    "ensemble_learner": "learning.ensemble",
    "equinox_model": "learning.equinox_modules",
    "graph_features": "learning.graph_embedding",
    "image_features": "learning.image_embedding",
    "logistic_head": "learning.head",
    "mc_dropout_learner": "learning.training",
    "nnx_model": "learning.flax_nnx",
    "sample_forest": "learning.forest",
    "sample_mc_dropout": "learning.mc_dropout",
    "sample_sharded": "learning.sharded_sampling",
    "sample_torch": "learning.torch_sampling",
    "text_features": "learning.text_embedding",
    "datasets": "experiment.datasets",
    "loop": "loop",
    "pool": "pool",
}

__all__ = [*_LAZY]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"bbald_jax.{_LAZY[name]}")
    return module if module.__name__.endswith(f".{name}") else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
