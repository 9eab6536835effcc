"""From a recipe to a trained model: data, vectors, clusters, batches, loss, trainer."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError, StoreError, missing_dependency
from ..files import as_path, write_json
from ..models.statistics import write_settings
from ..runtime import supports_bfloat16
from .checkpoints import check_same_run, last_checkpoint, run_record
from .families import family_of
from .families.base import Family
from .prepare import Prepared, prepare
from .recipes import Recipe
from .trainer import Evaluate, PairTrainer, trainer_of

__all__ = ["prepare", "train"]

logger = logging.getLogger(__name__)

# What transformers logs beside an evaluation's results.
SPEEDS = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


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
    r"""Train a model, alone or as one of the processes that ``torchrun`` started.

    Parameters
    ----------
    recipe
        The recipe.
    output
        Directory of checkpoints, the log (``log.jsonl``), the recipe, and the trained model (``model/``).
    cache
        Directory of columns, vectors and clusters; None: ``<output>/cache``.
    resume
        Continue from the last checkpoint in `output`; if there is none, start.
    evaluate
        Called every `recipe.evaluate_steps` with the model (a contextual model or an encoder) and the step; its
        numbers are logged and, the last of them, written on the model card.
    license
        License of the trained model.
    on_ready
        Called with the trainer before it starts.

    Returns
    -------
    ContextualTransformer, DenseEncoder, Splade, SparseEmbed or TrainedContext
        The trained model. ``<output>/model`` holds it, a bi-encoder without a head as a plain sentence-transformers
        model, under the statistics of its corpus where the recipe says so.

    Raises
    ------
    MissingDependencyError
        If accelerate or datasets is not installed.
    ConfigError
        If the recipe names no data, or `learning_rates` name parameters that the model does not have.
    MismatchError
        If the last checkpoint is of another run: other data, model, recipe, or number of processes.
    StoreError
        If `output` holds a run and `resume` is off, or the disk is full.
    TrainingError
        If the loss or a gradient is not finite, or a sparse model has collapsed; the last checkpoint stays.

    Examples
    --------
    >>> import json, tempfile
    >>> from cderetrieval.testing import tiny_dense_directory
    >>> folder = Path(tempfile.mkdtemp())
    >>> pairs = [{"query": f"owl {n}", "document": f"owl {n} hoots"} for n in range(4)]
    >>> _ = (folder / "owls.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    >>> recipe = Recipe("tiny", tiny_dense_directory(), "dense", data=(str(folder),), filter="off", clusters=False,
    ...                 batch_size=4, max_length=16, max_steps=1)
    >>> train(recipe, folder / "run").encode_query(["owl"]).shape
    (1, 32)
    """
    output = as_path(output)
    checkpoint = _check_start(recipe, output, resume)
    family = family_of(recipe)
    model = family.build()
    _check_rates(recipe, model)
    arguments = training_arguments(family, output, evaluate is not None)
    processes, device = arguments.world_size, arguments.device
    if recipe.dtype == "bfloat16" and not supports_bfloat16(device):
        logger.warning("%s has no bfloat16 of its own and imitates it slowly; dtype='float32' is faster", device)
    prepared = prepare(recipe, cache or output / "cache", processes=processes, device=str(device))
    record = run_record(prepared.data.fingerprint, recipe.to_dict(), family.settings(model), processes)
    if checkpoint is not None:
        check_same_run(checkpoint, record)
    card = model_card_fields(recipe, prepared, license)
    model = model.to(device)
    trainer = trainer_of(family)(family, prepared, model, arguments, card=card, record=record, evaluate=evaluate)
    if trainer.is_world_process_zero():
        report = {"sources": prepared.data.sources, "rows": len(prepared.data), **prepared.report}
        write_json(output / "recipe.json", recipe.to_dict())
        write_json(output / "data.json", report)
    if on_ready is not None:
        on_ready(trainer)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
    trainer.model.eval()
    if recipe.saved_length is not None:
        trainer.model.max_seq_length = recipe.saved_length
    if trainer.is_world_process_zero():
        family.finish(trainer.model, str(output / "model"), {**card, "results": _last_results(trainer)})
        if (statistics := recipe.statistics_config()) is not None:
            write_settings(statistics, output / "model")
    trainer.accelerator.wait_for_everyone()
    return family.encoder(trainer.model)


def _check_start(recipe: Recipe, output: Path, resume: bool) -> Path | None:
    """Refuse a run that cannot start; the checkpoint that it continues from."""
    for package in ("accelerate", "datasets"):
        if find_spec(package) is None:
            raise missing_dependency(package, "train")
    if not recipe.data:
        raise ConfigError("the recipe names no training data: set data to files, folders, or 'hub:' names.")
    checkpoint = last_checkpoint(output)
    if checkpoint is not None and not resume:
        raise StoreError(f"{output} holds a run up to {checkpoint.name}: resume it, or choose another directory.")
    return checkpoint


def training_arguments(family: Family, output: Path, evaluated: bool) -> Any:
    """The recipe in the words of transformers."""
    recipe = family.recipe
    steps = recipe.evaluate_steps if evaluated else None
    cuda = torch.cuda.is_available()
    hardware = cuda and supports_bfloat16(torch.device("cuda"))
    return trainer_of(family).training_args_class(
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
        dataloader_pin_memory=cuda,
        dataloader_drop_last=True,
        use_cpu=not cuda,
        bf16=family.casts and (recipe.dtype == "bfloat16" or (recipe.dtype == "auto" and hardware)),
        disable_tqdm=True,
        **recipe.arguments,
    )


def _check_rates(recipe: Recipe, model: torch.nn.Module) -> None:
    """Refuse a rate for parameters that are not there; the trainer would, after the data have been embedded."""
    names = [f"model.{name}" for name, _ in model.named_parameters()]  # as the loss, which the trainer asks, has them
    for pattern in recipe.learning_rates:
        if not any(re.search(pattern, name) for name in names):
            raise ConfigError(
                f"learning_rates={dict(recipe.learning_rates)!r}: no parameter of this model matches {pattern!r} (only "
                "cached_form='gated' has gates). Leave it out; --learning-rates '{}' leaves out all."
            )


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


def _last_results(trainer: PairTrainer) -> dict[str, float] | None:
    """Numbers of the last evaluation; None without one."""
    for entry in reversed(trainer.state.log_history):
        results = {name: float(value) for name, value in entry.items() if name.startswith("eval_")}
        if results:
            return {name.removeprefix("eval_"): value for name, value in results.items() if name not in SPEEDS}
    return None
