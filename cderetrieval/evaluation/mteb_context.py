"""What of an mteb task a context may be sampled from, by task type; never labels, never queries.

=================================================  ==========================================================
retrieval, reranking (also with instructions)      the corpus of the subset and split, through `index`
classification, multilabel, regression             input text of the train split
clustering                                         input text of the split, lists flattened
STS, pair classification, bitext mining            both columns of the split
summarization                                      the ``text`` column, which the task itself never encodes
zero-shot classification                           input text of the split, not the candidate labels
=================================================  ==========================================================

Where there is no train split, the pool is unlabelled input text of the evaluated split, as in section 10.12 of the CDE
paper: transductive, and to be said so. An encoder that sampled from the first texts it is given would see queries
(encoded before documents), label names (zero-shot) or one side of each pair.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

TRAIN_TYPES = ("Classification", "MultilabelClassification", "Regression")

Key = tuple[str, str]


def is_retrieval(task: Any) -> bool:
    """Whether a task is searched, so that its context comes from its corpus.

    By what it can do, not by its type's name: mteb has retrieval tasks of other types.
    """
    from mteb.abstasks import AbsTaskRetrieval

    return isinstance(task, AbsTaskRetrieval)


def context_pools(task: Any) -> Iterator[tuple[list[Key], list[str]]]:
    """Texts to sample contexts from.

    Parameters
    ----------
    task
        An mteb task that is not a retrieval task, with its data loaded.

    Yields
    ------
    tuple
        The (subset, split) pairs, as mteb names them when it encodes, that share a context; and its texts.
    """
    if task.metadata.type in TRAIN_TYPES:
        for subset in task.hf_subsets:
            keys = [(subset, split) for split in dict.fromkeys([task.train_split, *task.eval_splits])]
            yield keys, _texts(_rows(task, subset, task.train_split), _columns(task))
        return
    for split in task.eval_splits:
        if getattr(task, "parallel_subsets", False):
            # One table for all language pairs; mteb then names the encoded column as the subset.
            rows = task.dataset[split]
            languages = sorted({language for pair in task.hf_subsets for language in pair.split("-")})
            keys = [(name, split) for name in [*languages, *task.hf_subsets]]
            yield keys, _texts(rows, languages)
            continue
        for subset in task.hf_subsets:
            yield [(subset, split)], _texts(_rows(task, subset, split), _columns(task))


def _rows(task: Any, subset: str, split: str) -> Any:
    """Rows of a subset; monolingual tasks may leave out that level."""
    by_subset = subset in task.dataset
    return task.dataset[subset][split] if by_subset else task.dataset[split]


def _columns(task: Any) -> list[str]:
    """Names of the input columns of a task."""
    kind = task.metadata.type
    if kind == "STS":
        columns = task.column_names
    elif kind == "PairClassification":
        columns = (task.input1_column_name, task.input2_column_name)
    elif kind == "BitextMining":
        columns = ("sentence1", "sentence2")
    elif kind == "Summarization":
        columns = (getattr(task, "text_column_name", "text"),)
    else:
        columns = getattr(task, "input_column_name", "sentences")
    return [columns] if isinstance(columns, str) else [str(column) for column in columns]


def _texts(rows: Any, columns: Iterable[str]) -> list[str]:
    """All texts of some columns, lists flattened, empty ones left out."""
    found = itertools.chain.from_iterable(_flat(rows[column]) for column in columns)
    return [text for text in found if text.strip()]


def _flat(values: Any) -> Iterator[str]:
    """Strings of a column: cells are strings, or lists of them (clustering sets, pairs in one row)."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif value is not None:
            yield from _flat(value)
