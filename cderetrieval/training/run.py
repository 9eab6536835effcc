"""From a recipe to a trained model: data, vectors, clusters, batches, loss, trainer."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError, StoreError, missing_dependency
from ..files import as_path, write_json
from ..models.statistics import write_settings
from ..runtime import supports_bfloat16
from .checkpoints import check_same_run, last_checkpoint, run_record
from .cluster import Clusters, ClusterSettings, cluster_pairs, difficulty
from .data import PairData, load_pairs, usable_domains
from .distinct import TextNumbers, text_numbers
from .families import family_of
from .families.base import Family
from .recipes import Recipe
from .samplers import ClusteredBatchSampler, Groups
from .surrogate import StoredVectors, load_surrogate, store_vectors
from .trainer import Evaluate, PairTrainer

logger = logging.getLogger(__name__)

# Batches whose difficulty is measured before training.
MEASURED_BATCHES = 50
# What transformers logs beside an evaluation's results.
SPEEDS = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs of the data.

    Attributes
    ----------
    data
        The pairs.
    groups
        Domains and clusters.
    vectors
        Surrogate vectors; None where neither clusters nor a stored filter need them.
    texts
        Keeps texts from standing twice in a batch; None where the loss masks them.
    report
        Sizes of clusters and difficulty of batches.
    """

    data: PairData
    groups: Groups
    vectors: StoredVectors | None
    texts: TextNumbers | None
    report: dict[str, float]


def prepare(recipe: Recipe, cache: str | Path, *, processes: int = 1, device: str | None = None) -> Prepared:
    """Read the data, embed it with the surrogate, cluster it; everything is kept in `cache`.

    Parameters
    ----------
    recipe
        The recipe.
    cache
        Directory of what is computed once.
    processes
        Processes that will train.
    device
        Where the surrogate computes.
    """
    data = load_pairs(recipe.data, cache, negatives=recipe.negatives)
    ranks = processes if recipe.share_negatives else 1
    distinct = family_of(recipe.architecture).distinct
    if recipe.distillation != "none":
        data.check_complete("distillation", scored=True)
    elif ranks > 1 and distinct:
        data.check_complete("sharing negatives between processes", scored=False)
    rows = recipe.batch_size * ranks
    domain = usable_domains(data, rows, recipe.small_domains)
    weights = None if data.weights is None else tuple(data.weights)
    vectors = None
    if recipe.clusters or recipe.filter == "stored":
        name = f"{recipe.surrogate}:{recipe.surrogate_length}"
        length = recipe.surrogate_length
        vectors = store_vectors(
            data, lambda: load_surrogate(recipe.surrogate, max_length=length, device=device), name, cache
        )
    if recipe.clusters and vectors is not None:
        clusters = _clusters(recipe, data, vectors, domain, rows, cache)
        groups = Groups.from_clusters(domain, clusters, np.asarray(data.dataset), weights)
        report = clusters.report()
    else:
        groups, report = Groups.without_clusters(domain, np.asarray(data.dataset), weights), {}
    texts = text_numbers(data, cache) if distinct else None
    prepared = Prepared(data, groups, vectors, texts, report)
    if vectors is not None:
        sampler = batch_sampler(recipe, prepared, ranks)
        report |= difficulty(vectors, list(sampler.plan(0)[:MEASURED_BATCHES]))
    logger.info("%d pairs; %s", len(data), ", ".join(f"{name} {value:.4g}" for name, value in report.items()))
    return prepared


def _clusters(
    recipe: Recipe, data: PairData, vectors: StoredVectors, domain: np.ndarray, rows: int, cache: str | Path
) -> Clusters:
    settings = ClusterSettings(recipe.cluster_size, recipe.cluster_dimensions)
    key = {"data": data.fingerprint, "rows": rows, "small_domains": recipe.small_domains}
    return cluster_pairs(vectors, domain, settings, cache, {**key, "length": recipe.surrogate_length})


def batch_sampler(recipe: Recipe, prepared: Prepared, ranks: int) -> ClusteredBatchSampler:
    """The recipe's batches."""
    return ClusteredBatchSampler(
        prepared.data,
        recipe.batch_size,
        seed=recipe.seed,
        groups=prepared.groups,
        packing=recipe.packing,
        ranks=ranks,
        texts=prepared.texts,
    )


def training_arguments(recipe: Recipe, family: Family, output: Path, evaluated: bool) -> Any:
    """The recipe in the words of transformers."""
    steps = recipe.evaluate_steps if evaluated else None
    return family.trainer.training_args_class(
        output_dir=str(output),
        per_device_train_batch_size=recipe.batch_size,
        num_train_epochs=recipe.epochs,
        max_steps=recipe.max_steps or -1,
        learning_rate=recipe.learning_rate,
        learning_rate_mapping=dict(recipe.learning_rates),
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip,
        gradient_accumulation_steps=recipe.accumulation,
        seed=recipe.seed,
        logging_steps=recipe.log_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=recipe.save_steps,
        save_total_limit=recipe.keep,
        eval_strategy="no" if steps is None else "steps",
        eval_steps=steps,
        report_to=list(recipe.loggers) or "none",
        dataloader_num_workers=recipe.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        dataloader_drop_last=True,
        use_cpu=not torch.cuda.is_available(),
        bf16=family.casts and _bfloat16(recipe.dtype),
        disable_tqdm=True,
    )


def _bfloat16(dtype: str) -> bool:
    """Whether transformers casts."""
    if dtype == "auto":
        return torch.cuda.is_available() and supports_bfloat16(torch.device("cuda"))
    return dtype == "bfloat16"


def train(
    recipe: Recipe,
    output: str | Path,
    *,
    cache: str | Path | None = None,
    resume: bool = False,
    evaluate: Evaluate | None = None,
    license: str = "apache-2.0",
    on_ready: Callable[[PairTrainer], None] | None = None,
) -> Any:
    """Train a model, alone or as one of the processes that ``torchrun`` started.

    Parameters
    ----------
    recipe
        The recipe.
    output
        Directory of checkpoints, the log (``log.jsonl``), the recipe, and the trained model (``model/``).
    cache
        Directory of columns, vectors and clusters; None: ``<output>/cache``.
    resume
        Go on from the last checkpoint in `output`; where there is none, start.
    evaluate
        Called every `recipe.evaluate_steps` with the model (a contextual model or an encoder) and the step; its
        numbers are logged and, the last of them, written on the model card.
    license
        Of the trained model.
    on_ready
        Called with the trainer before it starts.

    Returns
    -------
    ContextualTransformer, DenseEncoder, Splade or SparseEmbed
        The trained model. ``<output>/model`` holds it, a bi-encoder without a head as a plain sentence-transformers
        model, under the statistics of its corpus where the recipe says so.

    Raises
    ------
    MissingDependencyError
        If accelerate or datasets is not installed.
    ConfigError
        If the recipe names no data, or `learning_rates` name parameters that the model has not.
    MismatchError
        If the last checkpoint is of another run: other data, model, recipe, or number of processes.
    StoreError
        If `output` holds a run and `resume` is off, or the disk is full.
    TrainingError
        If the loss or a gradient is not finite, or a sparse model has collapsed; the last checkpoint stays.
    """
    for package in ("accelerate", "datasets"):
        if find_spec(package) is None:
            raise missing_dependency(package, "train")
    if not recipe.data:
        raise ConfigError("the recipe names no training data: set data to files, folders, or 'hub:' names.")
    output = as_path(output)
    checkpoint = last_checkpoint(output)
    if checkpoint is not None and not resume:
        raise StoreError(f"{output} holds a run up to {checkpoint.name}: resume it, or choose another directory.")
    family = family_of(recipe.architecture)
    model = family.build(recipe)
    _check_rates(recipe, model)
    arguments = training_arguments(recipe, family, output, evaluate is not None)
    processes = arguments.world_size
    device = str(arguments.device)
    if recipe.dtype == "bfloat16" and not supports_bfloat16(arguments.device):
        logger.warning("%s has no bfloat16 of its own and imitates it slowly; dtype='float32' is faster", device)
    prepared = prepare(recipe, cache or output / "cache", processes=processes, device=device)
    record = run_record(prepared.data.fingerprint, recipe.to_dict(), family.settings(model), processes)
    if checkpoint is not None:
        check_same_run(checkpoint, _as_json(record))
    card = model_card_fields(recipe, prepared, license)
    loss = family.loss(recipe, model.to(arguments.device), prepared, device)
    trainer = family.trainer(
        family=family,
        model=model,
        args=arguments,
        loss=loss,
        data=prepared.data,
        data_collator=family.collator(recipe, model, prepared.data),
        callbacks=family.callbacks(recipe, loss),
        batches=lambda: batch_sampler(recipe, prepared, processes if recipe.share_negatives else 1),
        record=record,
        card=card,
        evaluate=evaluate,
    )
    if trainer.is_world_process_zero():
        write_json(output / "recipe.json", recipe.to_dict())
        write_json(
            output / "data.json", {"sources": prepared.data.sources, "rows": len(prepared.data), **prepared.report}
        )
    if on_ready is not None:
        on_ready(trainer)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
    return _finish(trainer, output, card, recipe)


def _check_rates(recipe: Recipe, model: torch.nn.Module) -> None:
    """Refuse a rate for parameters that the model has not; the trainer would, after the data have been embedded."""
    names = [f"model.{name}" for name, _ in model.named_parameters()]  # as the loss, which the trainer asks, has them
    for pattern in recipe.learning_rates:
        if not any(re.search(pattern, name) for name in names):
            raise ConfigError(
                f"learning_rates={dict(recipe.learning_rates)!r}: no parameter of this model matches {pattern!r} (only "
                "cached_form='gated' has gates). Leave it out; --learning-rates '{}' leaves out all."
            )


def _as_json(value: Any) -> Any:
    """What a JSON file gives back: lists for tuples."""
    import json

    return json.loads(json.dumps(value))


def model_card_fields(recipe: Recipe, prepared: Prepared, license: str) -> dict[str, Any]:
    """What the model card says of the training."""
    shown = {name: value for name, value in recipe.to_dict().items() if name not in ("data", "loggers", "workers")}
    lines = "\n".join(f"| {name} | `{value}` |" for name, value in shown.items())
    return {
        "name": recipe.name,
        "license": license,
        "base_model": recipe.base,
        "training_data": sorted(set(prepared.data.sources)),
        "recipe": f"{len(prepared.data)} pairs, recipe `{recipe.name}`:\n\n| setting | value |\n|---|---|\n{lines}",
    }


def _finish(trainer: PairTrainer, output: Path, card: dict[str, Any], recipe: Recipe) -> Any:
    trainer.model.eval()
    if recipe.saved_length is not None:
        trainer.model.max_seq_length = recipe.saved_length
    evaluated = [entry for entry in trainer.state.log_history if any(name.startswith("eval_") for name in entry)]
    results = {
        name.removeprefix("eval_"): float(value)
        for name, value in (evaluated[-1] if evaluated else {}).items()
        if name.startswith("eval_") and name not in SPEEDS
    }
    if trainer.is_world_process_zero():
        trainer.family.finish(recipe, trainer.model, str(output / "model"), {**card, "results": results or None})
        if (statistics := recipe.statistics_config()) is not None:
            write_settings(statistics, output / "model")
    trainer.accelerator.wait_for_everyone()
    return trainer.family.encoder(trainer.model)
