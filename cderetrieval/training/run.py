"""From a recipe to a trained model: data, vectors, clusters, batches, loss, trainer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

from ..errors import ConfigError, StoreError, missing_dependency
from ..files import write_json
from ..models.contextual import ContextualTransformer
from ..models.sentence_transformer import ContextualModule
from .checkpoints import check_same_run, last_checkpoint, run_record
from .cluster import Clusters, ClusterSettings, cluster_pairs, difficulty
from .data import PairData, load_pairs, usable_domains
from .false_negatives import FalseNegativeFilter
from .gradcache import Caching
from .losses import ContextualLoss
from .recipes import Recipe
from .samplers import ClusteredBatchSampler, Groups
from .start import start_model
from .surrogate import FreshVectors, StoredVectors, load_surrogate, store_vectors
from .trainer import ContextualTrainer, Evaluate

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
    report
        Sizes of clusters and difficulty of batches.
    """

    data: PairData
    groups: Groups
    vectors: StoredVectors | None
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
    rows = recipe.batch_size * ranks
    domain = usable_domains(data, rows, recipe.small_domains)
    weights = None if data.weights is None else tuple(data.weights)
    vectors = None
    if recipe.clusters or recipe.filter == "stored":
        name = f"{recipe.surrogate}:{recipe.surrogate_length}"
        vectors = store_vectors(data, lambda: _surrogate(recipe, device), name, cache)
    if recipe.clusters and vectors is not None:
        clusters = _clusters(recipe, data, vectors, domain, rows, cache)
        groups = Groups.from_clusters(domain, clusters, np.asarray(data.dataset), weights)
        report = clusters.report()
    else:
        groups, report = Groups.without_clusters(domain, np.asarray(data.dataset), weights), {}
    if vectors is not None:
        sampler = batch_sampler(recipe, data, groups, ranks)
        report |= difficulty(vectors, list(sampler.plan(0)[:MEASURED_BATCHES]))
    logger.info("%d pairs; %s", len(data), ", ".join(f"{name} {value:.4g}" for name, value in report.items()))
    return Prepared(data, groups, vectors, report)


def _surrogate(recipe: Recipe, device: str | None) -> Any:
    return load_surrogate(recipe.surrogate, max_length=recipe.surrogate_length, device=device)


def _clusters(
    recipe: Recipe, data: PairData, vectors: StoredVectors, domain: np.ndarray, rows: int, cache: str | Path
) -> Clusters:
    settings = ClusterSettings(recipe.cluster_size, recipe.cluster_dimensions)
    key = {"data": data.fingerprint, "rows": rows, "small_domains": recipe.small_domains}
    return cluster_pairs(vectors, domain, settings, cache, {**key, "length": recipe.surrogate_length})


def batch_sampler(recipe: Recipe, data: PairData, groups: Groups, ranks: int) -> ClusteredBatchSampler:
    """The recipe's batches."""
    return ClusteredBatchSampler(
        data, recipe.batch_size, seed=recipe.seed, groups=groups, packing=recipe.packing, ranks=ranks
    )


def make_loss(recipe: Recipe, model: SentenceTransformer, prepared: Prepared, device: str | None) -> ContextualLoss:
    """The recipe's loss."""
    found = None
    if recipe.filter == "stored" and prepared.vectors is not None:
        found = FalseNegativeFilter(prepared.vectors, recipe.filter_margin)
    elif recipe.filter == "fresh":
        fresh = FreshVectors(prepared.data, _surrogate(recipe, device))
        found = FalseNegativeFilter(fresh, recipe.filter_margin)
    return ContextualLoss(
        model,
        scale=recipe.scale,
        context_size=0 if recipe.architecture == "biencoder" else recipe.context_size,
        null_probability=recipe.null_probability,
        symmetric=recipe.symmetric,
        share_negatives=recipe.share_negatives,
        caching=Caching(
            recipe.chunk_tokens, recipe.first_chunk_tokens, recipe.dtype, train_first=recipe.first_stage != "frozen"
        ),
        false_negatives=found,
    )


def training_arguments(recipe: Recipe, output: Path, evaluated: bool) -> SentenceTransformerTrainingArguments:
    """The recipe in the words of transformers."""
    steps = recipe.evaluate_steps if evaluated else None
    return SentenceTransformerTrainingArguments(
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
        disable_tqdm=True,
    )


def build(recipe: Recipe) -> SentenceTransformer:
    """The model that a recipe starts from, ready to be trained."""
    contextual = start_model(recipe)
    if recipe.first_stage == "frozen":
        contextual.first_stage_model.requires_grad_(False)
    backbones = [contextual.second_stage_model.backbone]
    if contextual.config.first_stage == "own":
        backbones.append(contextual.first_stage_model.backbone)
    for backbone in backbones:
        if recipe.checkpointing:
            backbone.gradient_checkpointing_enable({"use_reentrant": False})
        if recipe.compile:
            backbone.compile(dynamic=True)
    return SentenceTransformer(
        modules=[ContextualModule(contextual)],
        device="cpu",
        prompts=dict(contextual.config.prompts),
        similarity_fn_name="cosine",
    )


def train(
    recipe: Recipe,
    output: str | Path,
    *,
    cache: str | Path | None = None,
    resume: bool = False,
    evaluate: Evaluate | None = None,
    license: str = "apache-2.0",
    on_ready: Callable[[ContextualTrainer], None] | None = None,
) -> ContextualTransformer:
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
        Called every `recipe.evaluate_steps` with the model and the step; its numbers are logged and, the last of
        them, written on the model card.
    license
        Of the trained model.
    on_ready
        Called with the trainer before it starts.

    Returns
    -------
    ContextualTransformer
        The trained model, as it was written to ``<output>/model``.

    Raises
    ------
    MissingDependencyError
        If accelerate or datasets is not installed.
    MismatchError
        If the last checkpoint is of another run: other data, model, recipe, or number of processes.
    StoreError
        If `output` holds a run and `resume` is off, or the disk is full.
    TrainingError
        If the loss or a gradient is not finite; the last checkpoint stays.
    """
    for package in ("accelerate", "datasets"):
        if find_spec(package) is None:
            raise missing_dependency(package, "train")
    if not recipe.data:
        raise ConfigError("the recipe names no training data: set data to files, folders, or 'hub:' names.")
    output = Path(output)
    checkpoint = last_checkpoint(output)
    if checkpoint is not None and not resume:
        raise StoreError(f"{output} holds a run up to {checkpoint.name}: resume it, or choose another directory.")
    model = build(recipe)
    arguments = training_arguments(recipe, output, evaluate is not None)
    processes = arguments.world_size
    device = str(arguments.device)
    prepared = prepare(recipe, cache or output / "cache", processes=processes, device=device)
    record = run_record(prepared.data.fingerprint, recipe.to_dict(), model[0].config.to_dict(), processes)
    if checkpoint is not None:
        check_same_run(checkpoint, _as_json(record))
    card = model_card_fields(recipe, prepared, license)
    trainer = ContextualTrainer(
        model=model.to(arguments.device),
        args=arguments,
        loss=make_loss(recipe, model, prepared, device),
        data=prepared.data,
        batches=lambda: batch_sampler(
            recipe, prepared.data, prepared.groups, processes if recipe.share_negatives else 1
        ),
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
    return _finish(trainer, output, card)


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


def _finish(trainer: ContextualTrainer, output: Path, card: dict[str, Any]) -> ContextualTransformer:
    contextual: ContextualTransformer = trainer.model[0].model
    contextual.eval()
    contextual.__dict__.pop("fingerprint", None)
    evaluated = [entry for entry in trainer.state.log_history if any(name.startswith("eval_") for name in entry)]
    results = {
        name.removeprefix("eval_"): float(value)
        for name, value in (evaluated[-1] if evaluated else {}).items()
        if name.startswith("eval_") and name not in SPEEDS
    }
    if trainer.is_world_process_zero():
        contextual.save_pretrained(str(output / "model"), **card, results=results or None)
    trainer.accelerator.wait_for_everyone()
    return contextual
