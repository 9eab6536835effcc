"""The training command: a recipe, what to change in it, and where to put the run.

python run_train.py minilm --data pairs/ --out runs/minilm
python run_train.py minilm --data pairs/ --out runs/minilm --resume
python run_train.py splade --data triples/ --out runs/splade --evaluate dev-set/
python run_train.py paper-small --print-config
python run_train.py minilm --data pairs/ --out runs/table1 --table1 --seeds 3 --sweep packing=random,tour
python run_train.py minilm --data pairs/ --out runs/j --table1 --cells contextual/contextual --sweep context_size=8,64
torchrun --nproc-per-node 8 run_train.py paper-large-v1 --out runs/large --share-negatives true
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError
from ..files import as_path
from .ablation import CELLS
from .recipes import Recipe, load_recipe, recipe_names

# Fields that are no settings of a run.
_FIXED = {"name"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the training command: every field of a recipe is an option."""
    parser.add_argument("recipe", help=f"{', '.join(recipe_names())}, or a JSON file")
    parser.add_argument("--out", type=as_path, metavar="DIR", help="directory for checkpoints, log and model")
    parser.add_argument(
        "--cache", type=as_path, metavar="DIR", help="directory for columns, vectors and clusters (default: OUT/cache)"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument("--print-config", action="store_true", help="print the recipe with all changes and stop")
    parser.add_argument("--prepare-only", action="store_true", help="read, embed and cluster the data, then stop")
    parser.add_argument("--table1", action="store_true", help="train the four cells of the paper's Table 1")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="number of seeds for each cell (default: 3)")
    parser.add_argument(
        "--cells",
        nargs="+",
        type=_cell,
        default=None,
        metavar="BATCHES/ARCHITECTURE",
        help="cells of Table 1 (default: all)",
    )
    parser.add_argument(
        "--sweep",
        nargs="+",
        default=[],
        metavar="FIELD=A,B",
        help="repeat the cells with these settings; write a nested one as model.layers=1,2",
    )
    parser.add_argument("--license", default="apache-2.0", help="licence of the trained model (default: apache-2.0)")
    fields = parser.add_argument_group("settings of the recipe", "lists take several values, objects take JSON")
    for field in dataclasses.fields(Recipe):
        if field.name not in _FIXED:
            option = f"--{field.name.replace('_', '-')}"
            nargs = "+" if str(field.type).startswith("tuple") else None
            # No default: "none" is a value like any other.
            fields.add_argument(
                option,
                dest=f"set_{field.name}",
                nargs=nargs,
                type=_value(field),
                default=argparse.SUPPRESS,
                metavar="VALUE",
            )


def _value(field: dataclasses.Field[Any]) -> Any:
    """How to read one value: JSON where it is JSON, text otherwise; names are always text."""
    if str(field.type).startswith(("str", "tuple")):
        return str

    def read(text: str) -> Any:
        value = _json_or_text(text)
        return {"none": None, "true": True, "false": False}.get(text.lower(), value)

    return read


def _cell(text: str) -> tuple[str, str]:
    """One cell of Table 1, ``"random/biencoder"``."""
    names = ["/".join(cell) for cell in CELLS]
    if text not in names:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}")
    batches, _, architecture = text.partition("/")
    return batches, architecture


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The named recipe with what the command line changes."""
    recipe = load_recipe(arguments.recipe)
    changes = {name.removeprefix("set_"): value for name, value in vars(arguments).items() if name.startswith("set_")}
    return recipe.replace(**changes)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _sweep(entries: Sequence[str]) -> dict[str, list[Any]]:
    """``["batch_size=64,128"]`` as a mapping of fields to values."""
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    sweep = {}
    for entry in entries:
        name, equals, values = entry.partition("=")
        name = name.replace("-", "_")
        field, dot, inner = name.partition(".")
        nested = field in fields and str(fields[field].type).startswith("Mapping")
        if not equals or field not in fields or nested != bool(dot and inner):
            raise ConfigError(
                f"--sweep {entry}: expected a setting of the recipe and its values, batch_size=64,128, or one inside "
                "another, model.layers=1,2."
            )
        # Inside an object "none" is a name, head="none" for example; there null is what says nothing.
        read = _json_or_text if nested else _value(fields[field])
        sweep[name] = [read(value) for value in values.split(",")]
    return sweep


def run(arguments: argparse.Namespace, evaluate: Any = None) -> str:
    """Train what the arguments say.

    Parameters
    ----------
    arguments
        Of :func:`add_arguments`.
    evaluate
        See :func:`~cderetrieval.training.run.train`.

    Returns
    -------
    str
        What to tell the user.
    """
    recipe = recipe_of(arguments)
    if arguments.print_config:
        return json.dumps(recipe.to_dict(), indent=2)
    if arguments.out is None:
        raise ConfigError("--out is missing: the directory of checkpoints, log and model.")
    from .run import prepare, train

    if arguments.table1:
        from .ablation import run_cells, table

        results = run_cells(
            recipe,
            arguments.out,
            seeds=arguments.seeds,
            sweep=_sweep(arguments.sweep),
            cells=arguments.cells or CELLS,
            cache=arguments.cache,
            evaluate=evaluate,
        )
        return table(results, arguments.seeds)
    cache = arguments.cache or arguments.out / "cache"
    if arguments.prepare_only:
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        prepared = prepare(recipe, cache, processes=processes)
        lines = [f"{len(prepared.data)} pairs", *(f"{name} {value:.4g}" for name, value in prepared.report.items())]
        return "\n".join(lines)
    train(
        recipe,
        arguments.out,
        cache=cache,
        resume=arguments.resume,
        evaluate=evaluate,
        license=arguments.license,
    )
    return f"trained model written to {arguments.out / 'model'}"
