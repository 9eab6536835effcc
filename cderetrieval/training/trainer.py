"""sentence-transformers' trainers, with our data, batches, losses, checkpoints and log.

Ours is only what these trainers cannot know: rows come from mapped columns, not from `datasets`; batches are clustered;
checkpoints are whole or do not count, hold no pickled arguments, and are read as every other model directory; a loss
that is not finite, or a sparse model that has collapsed, stops the run and names its batch.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.base.trainer import BaseTrainer
from sentence_transformers.sparse_encoder import SparseEncoderTrainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback

from ..errors import StoreError, TrainingError
from ..files import atomic_write, open_own, reading
from ..runtime import trained_attention
from .checkpoints import mark_whole
from .families.base import Family
from .prepare import Prepared, batch_sampler

logger = logging.getLogger(__name__)

# A contextual model or an encoder in training, and its step, to named numbers.
Evaluate = Callable[[Any, int], Mapping[str, float]]


class CallableEvaluator(BaseEvaluator):
    """A callable as sentence-transformers' trainers want their evaluators; it is given what `encoder` makes of a model.

    Evaluation does not touch the random numbers of the training.
    """

    def __init__(self, evaluate: Evaluate, encoder: Callable[[Any], Any]) -> None:
        super().__init__()
        self._evaluate = evaluate
        self._encoder = encoder

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Evaluate the model as it is at this step."""
        with torch.random.fork_rng(), torch.no_grad():
            return dict(self._evaluate(self._encoder(model), steps))


class JsonLog(TrainerCallback):
    """Writes what is logged as JSON lines, and to this module's logger.

    A resumed run first drops the lines that it will write again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep only the lines up to the step that is resumed from."""
        if state.is_world_process_zero and self.path.is_file():
            with reading(self.path, remedy="Remove it, or mend that line, and resume again."):
                lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
                whole = [line for line in lines if line.endswith("\n")]
                kept = [line for line in whole if json.loads(line)["step"] <= state.global_step]
            with atomic_write(self.path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write one line."""
        if state.is_world_process_zero and logs:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in logs.items() if isinstance(value, int | float))
            logger.info("step %d of %d: %s", state.global_step, state.max_steps, shown)
            with open(
                open_own(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), "a", encoding="utf-8"
            ) as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


class FiniteGradients(TrainerCallback):
    """Stops before a gradient that is not finite reaches the weights."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check the norm of all gradients."""
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        if gradients and not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            raise TrainingError(
                f"a gradient is not finite at step {state.global_step + 1}; nothing was changed. Resume from the last "
                "checkpoint with a smaller learning rate, or dtype='float32'."
            )


class PairTrainer(BaseTrainer):
    """What all trainers have in common: to be derived from before one of sentence-transformers' trainers.

    `card` has fields of the model card, `record` identifies the run.
    """

    def __init__(
        self,
        family: Family,
        prepared: Prepared,
        model: Any,
        args: Any,
        *,
        card: Mapping[str, Any],
        record: Mapping[str, Any],
        evaluate: Evaluate | None = None,
    ) -> None:
        self._family, self._prepared = family, prepared
        self._card, self._record = card, record
        self._logged = time.perf_counter(), 0
        loss = family.loss(model, prepared)
        super().__init__(
            model=model,
            args=args,
            train_dataset=prepared.data,
            loss=loss,
            evaluator=None if evaluate is None else CallableEvaluator(evaluate, family.encoder),
            data_collator=family.collator(model, prepared),
            callbacks=[*family.callbacks(loss), JsonLog(Path(args.output_dir) / "log.jsonl"), FiniteGradients()],
        )
        self.remove_callback(PrinterCallback)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Leave out sentence-transformers' card: the model writes its own."""

    def _build_dataloader(self, dataset: Any, batch_size: int, dataset_kind: str) -> DataLoader[Any]:
        """Rows of mapped columns in the batches of our sampler."""
        del batch_size, dataset_kind
        workers = self.args.dataloader_num_workers
        recipe = self._family.recipe
        self.batches = batch_sampler(recipe, self._prepared, self.args.world_size if recipe.share_negatives else 1)
        return DataLoader(
            dataset,
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=bool(workers) and self.args.dataloader_persistent_workers,
        )

    def _run_epoch(self, *, epoch: int, **kwargs: Any) -> None:
        # Where batches are skipped on resume, transformers reaches only what accelerate wraps around our sampler.
        self.batches.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **kwargs)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One step; a loss that is not finite, or a collapse, stops the run before the weights change."""
        rows = inputs["row"].tolist()
        tokens = max((texts.shape[1] for name, texts in inputs.items() if name.endswith("input_ids")), default=0)
        with trained_attention(self.args.device, "bfloat16" if self.args.bf16 else "float32", tokens):
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            shown = ", ".join(str(row) for row in rows[:8])
            raise TrainingError(
                f"the loss is {float(loss)} at step {self.state.global_step + 1}, in the batch of rows {shown}, ... "
                f"({self.train_dataset.where(rows[0])} and others). Nothing was changed: look at these rows, or resume "
                "from the last checkpoint with a smaller learning rate or dtype='float32'."
            )
        if hasattr(self.loss, "check"):
            self.loss.check(self.state.global_step + 1)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the loss counted, as means over all processes, and the seconds of a step."""
        if "loss" in logs:
            counted = self.loss.drain() if hasattr(self.loss, "drain") else {}
            names = sorted(counted)
            values = torch.tensor([counted[name] for name in names], dtype=torch.float64)
            means = self.accelerator.reduce(values.to(self.args.device), reduction="mean").tolist()
            now, step = time.perf_counter(), self.state.global_step
            logs |= dict(zip(names, means, strict=True))
            logs["step_seconds"] = (now - self._logged[0]) / max(1, step - self._logged[1])
            self._logged = now, step
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the model with its card, without pickled arguments."""
        self._family.save(self.model, output_dir or self.args.output_dir, self._card)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        """Read the weights without importing what the files name."""
        self._family.restore(self.model, Path(checkpoint_path).resolve())

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint that counts only when it is whole."""
        path = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                mark_whole(path, self._record)
        except (OSError, RuntimeError) as error:
            # torch says RuntimeError where a write fails.
            shutil.rmtree(path, ignore_errors=True)
            raise StoreError(
                f"the checkpoint {path} could not be written ({error}). Is the disk full? Earlier checkpoints are as "
                "they were: free some space and resume."
            ) from error


class DenseTrainer(PairTrainer, SentenceTransformerTrainer):
    """The trainer of dense and contextual models."""


class SparseTrainer(PairTrainer, SparseEncoderTrainer):
    """The trainer of sparse models."""


def trainer_of(family: Family) -> type[PairTrainer]:
    """The trainer of a kind of model."""
    return SparseTrainer if family.sparse else DenseTrainer
