"""The training command: a recipe, what to change in it, and where to put the run.

python run_train.py minilm --data pairs/ --out runs/minilm
python run_train.py minilm --data pairs/ --out runs/minilm --resume
python run_train.py splade --data triples/ --out runs/splade --evaluate dev-set/
python run_train.py minilm --data pairs/ --out runs/table1 --table1 --seeds 3 --sweep packing=random,tour
torchrun --nproc-per-node 8 run_train.py paper-large-v1 --out runs/large --share-negatives true
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ConfigError
from ..files import as_path
from .ablation import CELLS, run_cells, table
from .recipes import DOCUMENT, Recipe, load_recipe, recipe_names

# Annotation of each setting: how its option is read.
_SETTINGS = {field.name: str(field.type) for field in dataclasses.fields(Recipe) if field.name != "name"}
_METAVARS = {"int": "INT", "float": "FLOAT", "bool": "true|false", "str": "NAME", "tuple": "NAME", "Mapping": "JSON"}
_CELLS = {"/".join(cell): cell for cell in CELLS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the training command: every field of a recipe is an option."""
    add = parser.add_argument
    add("recipe", help=f"{', '.join(recipe_names())}, or a JSON file")
    add("--out", type=as_path, metavar="DIR", help="directory for checkpoints, log and model")
    add("--cache", type=as_path, metavar="DIR", help="directory for columns, vectors and clusters (default: OUT/cache)")
    add("--resume", action="store_true", help="continue from the last checkpoint")
    add("--print-config", action="store_true", help="print the recipe with all changes and stop")
    add("--prepare-only", action="store_true", help="read, embed and cluster the data, then stop")
    add("--table1", action="store_true", help="train the four cells of the paper's Table 1")
    add("--seeds", type=int, default=3, metavar="N", help="number of seeds for each cell (default: 3)")
    add("--cells", nargs="+", choices=_CELLS, default=[*_CELLS], help="cells of Table 1 (default: all)")
    sweep = "repeat the cells with these settings; write a nested one as model.layers=1,2"
    add("--sweep", nargs="+", default=[], metavar="FIELD=A,B", help=sweep)
    add("--license", default="apache-2.0", help="licence of the trained model (default: apache-2.0)")
    about = "lists take several values, objects take JSON; recipes have values of their own, which --print-config shows"
    fields = parser.add_argument_group("settings of the recipe", about)
    texts, defaults = _explained(), Recipe("", "").to_dict()
    for name, annotation in _SETTINGS.items():
        # No default: "none" is a value like any other.
        default = json.dumps(defaults[name]).replace("null", "none")
        fields.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"set_{name}",
            nargs="+" if annotation.startswith("tuple") else None,
            type=_reader(annotation),
            default=argparse.SUPPRESS,
            metavar=_METAVARS.get(annotation.split("[")[0].split(" ")[0], "VALUE"),
            help=f"{texts.get(name, '')} (default: {default})".replace("%", "%%"),
        )


def _explained() -> dict[str, str]:
    """What the docstring of a recipe says of each setting, without its markup."""
    section = (inspect.getdoc(Recipe) or "").partition("----------\n")[2].partition("\n\nExamples")[0]
    found: dict[str, str] = {}
    for names, text in re.findall(r"^(\S.*)\n((?:    .*\n?)+)", section, re.MULTILINE):
        plain = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", " ".join(text.split())).replace("`", "")
        found |= dict.fromkeys(names.split(", "), plain.rstrip("."))
    return found


def _reader(annotation: str) -> Callable[[str], Any]:
    """How to read one value: JSON where it is JSON, text otherwise; names are always text."""
    words = {"none": None, "true": True, "false": False}
    if annotation.startswith(("str", "tuple")):
        return str
    return lambda text: words[text.lower()] if text.lower() in words else _json_or_text(text)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_sweep(entries: Sequence[str]) -> dict[str, list[Any]]:
    """``["batch_size=64,128"]`` as a mapping of fields to values."""
    sweep = {}
    for entry in entries:
        name, equals, values = entry.partition("=")
        name = name.replace("-", "_")
        field, dot, inner = name.partition(".")
        nested = _SETTINGS.get(field, "").startswith("Mapping")
        if not equals or field not in _SETTINGS or nested != bool(dot and inner):
            raise ConfigError(
                f"--sweep {entry}: expected a setting of the recipe and its values, batch_size=64,128, or one inside "
                "another, model.layers=1,2."
            )
        # Inside an object "none" is a name, head="none" for example, and null stands for None.
        read = _json_or_text if nested else _reader(_SETTINGS[field])
        sweep[name] = [read(value) for value in values.split(",")]
    return sweep


def run(arguments: argparse.Namespace, evaluate: Any = None) -> str:
    """Train what the arguments say, and return what to tell the user."""
    changes = {name.removeprefix("set_"): value for name, value in vars(arguments).items() if name.startswith("set_")}
    recipe = load_recipe(arguments.recipe).replace(**changes)
    if arguments.print_config:
        return json.dumps(recipe.to_dict(), indent=2)
    if evaluate is not None and recipe.architecture == DOCUMENT:
        raise ConfigError(
            "--evaluate scores encoders, and this recipe trains a document context: leave it out, and measure what was "
            "trained with context_gain(..., document_context=DocumentContext(trained=...))."
        )
    if arguments.out is None:
        raise ConfigError("--out is missing: the directory of checkpoints, log and model.")
    out, cache = arguments.out, arguments.cache or arguments.out / "cache"
    if arguments.table1:
        cells = [_CELLS[name] for name in arguments.cells]
        table1 = {"sweep": read_sweep(arguments.sweep), "cells": cells, "cache": cache, "evaluate": evaluate}
        return table(run_cells(recipe, out, seeds=arguments.seeds, **table1), arguments.seeds)
    from .run import prepare, train

    if arguments.prepare_only:
        prepared = prepare(recipe, cache, processes=int(os.environ.get("WORLD_SIZE", "1")))
        lines = [f"{len(prepared.data)} pairs", *(f"{name} {value:.4g}" for name, value in prepared.report.items())]
        return "\n".join(lines)
    train(recipe, out, cache=cache, resume=arguments.resume, evaluate=evaluate, license=arguments.license)
    return f"trained model written to {out / 'model'}"
