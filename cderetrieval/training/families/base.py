"""What differs between kinds of models in training; everything else is one path for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...files import atomic_write
from ...models.card import encoder_card
from ...models.load import load
from ...models.loading import quiet
from ..collator import PairCollator
from ..recipes import Recipe

if TYPE_CHECKING:
    from torch import nn

    from ..prepare import Prepared


class Family(ABC):
    """One kind of model in training, by a recipe."""

    # Whether the trainer computes in the recipe's number format; the contextual loss does so itself.
    casts = True
    # Whether it is one of sentence-transformers' sparse models, which must be told which texts are queries.
    sparse = False

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def build(self) -> Any:
        """The model that the recipe starts from, on the CPU: one of sentence-transformers' models."""

    @abstractmethod
    def settings(self, model: Any) -> Mapping[str, Any]:
        """What a run is resumed by, as JSON values: a checkpoint of other settings is refused."""

    @abstractmethod
    def loss(self, model: Any, prepared: Prepared) -> nn.Module:
        """The recipe's loss; the trainer logs its ``drain()`` and calls its ``check(step)``, where it has them."""

    @abstractmethod
    def encoder(self, model: Any) -> Any:
        """What evaluation and the caller are given: a contextual model or an encoder, with the current weights."""

    def collator(self, model: Any, prepared: Prepared) -> Any:
        """Rows to a batch of token ids."""
        prompts, scored = self.encoder(model).settings.prompts, self.recipe.distillation != "none"
        return PairCollator(model.preprocess, prepared.pairs, prompts, tasks=self.sparse, scored=scored)

    def save(self, model: Any, path: str, card: Mapping[str, Any]) -> None:
        """Write the model with its card into a directory that `load` and sentence-transformers read."""
        write_model(model, self.encoder(model), path, card)

    def restore(self, model: Any, path: Path) -> None:
        """Read the weights of a checkpoint as `load` reads any directory: others import what files name."""
        ours: Any = self.encoder(model)
        saved: Any = load(path, device="cpu")
        getattr(ours, "model", ours).load_state_dict(getattr(saved, "model", saved).state_dict())

    def finish(self, model: Any, path: str, card: Mapping[str, Any]) -> None:
        """Write the trained model; where training has a form of its own, in the form in which it is used."""
        self.save(model, path, card)

    def callbacks(self, loss: nn.Module) -> list[Any]:
        """Further callbacks of the trainer."""
        del loss
        return []


def write_model(model: Any, encoder: Any, path: str, card: Mapping[str, Any]) -> None:
    """Write a model of sentence-transformers with a card of ours."""
    with quiet():
        model.save_pretrained(path, create_model_card=False)
    with atomic_write(f"{path}/README.md") as temporary:
        temporary.write_text(encoder_card(encoder, **card), encoding="utf-8")


def switch_on(recipe: Recipe, backbones: list[Any]) -> None:
    """Recompute activations, compile: as the recipe says."""
    for backbone in backbones:
        if recipe.checkpointing:
            backbone.gradient_checkpointing_enable({"use_reentrant": False})
        if recipe.compile:
            backbone.compile(dynamic=True)


def known_settings(recipe: Recipe, names: tuple[str, ...]) -> dict[str, Any]:
    """The recipe's `model`, checked for unknown names."""
    if unknown := sorted(set(recipe.model) - set(names)):
        raise ConfigError(
            f"recipe: model has unknown settings {', '.join(unknown)}; architecture={recipe.architecture!r} has "
            f"{', '.join(names)}."
        )
    return dict(recipe.model)
