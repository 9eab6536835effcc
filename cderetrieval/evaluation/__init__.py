"""Evaluation: models on BEIR folders, mteb tasks and one's own data, with metrics, tests and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

# Public name to the module that holds it.
_PUBLIC = {
    "BeirModel": "beir_model",
    "BeirSearch": "beir_model",
    "Comparison": "compare",
    "ContextGain": "gain",
    "MTEBModel": "mteb_model",
    "Results": "results",
    "context_gain": "gain",
    "evaluate": "api",
    "evaluate_run": "metrics",
    "passage_metrics": "spans",
    "precision_omega": "spans",
}
__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from .api import evaluate as evaluate
    from .beir_model import BeirModel as BeirModel
    from .beir_model import BeirSearch as BeirSearch
    from .compare import Comparison as Comparison
    from .gain import ContextGain as ContextGain
    from .gain import context_gain as context_gain
    from .metrics import evaluate_run as evaluate_run
    from .mteb_model import MTEBModel as MTEBModel
    from .results import Results as Results
    from .spans import passage_metrics as passage_metrics
    from .spans import precision_omega as precision_omega
else:
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
