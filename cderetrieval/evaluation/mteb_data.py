"""Data of mteb tasks: BEIR folders put into them, their splits as datasets, and the texts of their contexts.

A folder is read by this package's own reader: `datasets.load_dataset` takes the first line of each file for a header
once a .tsv lies beside the .jsonl, and caches by the folder's name, so that edited files would not be seen. The task's
revision becomes a digest of the content, and the corpus an Arrow file that is memory-mapped, whatever its size.

A context is sampled from the corpus in retrieval and reranking, from the train split where labels are learned, and
else from unlabelled input text of the evaluated split, which is transductive, as in section 10.12 of the CDE paper.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..corpora.beir_folder import read_beir, splits
from ..corpora.dataset import Corpus, Dataset
from ..errors import InputError

TRAIN_TYPES = ("Classification", "MultilabelClassification", "Regression")
# Subset and split.
Key = tuple[str, str]
_ROWS = 10_000


def is_retrieval(task: Any) -> bool:
    """Whether a task is searched; mteb has retrieval tasks whose type has another name."""
    from mteb.abstasks import AbsTaskRetrieval

    return isinstance(task, AbsTaskRetrieval)


def use_folder(task: Any, folder: Path, directory: Path, split: str | None = None) -> None:
    """Give a new mteb retrieval task the data of a BEIR folder; its metadata then has the data's revision.

    `directory` holds the Arrow files, until the task has been evaluated; `split` takes the place of the task's own.
    """
    if len(task.hf_subsets) != 1:
        raise InputError(
            f"{task.metadata.name} has {len(task.hf_subsets)} subsets ({', '.join(task.hf_subsets[:5])}, ...) and a "
            "folder has one. Evaluate it as a dataset of its own: give it another name with --data NAME=FOLDER."
        )
    there = splits(folder)
    asked = list(task.eval_splits) if split is None else [split]
    missing = next((one for one in asked if one not in there), None)
    if missing is not None:
        raise InputError(
            f"{folder} has no split {missing!r}, on which {task.metadata.name} is evaluated; it has "
            f"{', '.join(there)}. Choose one with --split."
        )
    datasets = {one: read_beir(folder, one) for one in asked}
    revision = "-".join(dataset.revision for dataset in datasets.values())
    source = {"path": str(folder), "revision": revision}
    task.metadata = task.metadata.model_copy(update={"dataset": source, "eval_splits": asked})
    task.dataset = {
        task.hf_subsets[0]: {name: _task_data(dataset, directory / name) for name, dataset in datasets.items()}
    }
    task.data_loaded = True


def _task_data(dataset: Dataset, directory: Path) -> dict[str, Any]:
    """One split in the form of mteb's retrieval tasks."""
    queries = ({"id": query, "text": text} for query, text in dataset.queries.items())
    # trec_eval gives grades below 1 no gain, and pytrec_eval writes outside its arrays for grades below -1.
    relevant = {query: {doc: max(0, grade) for doc, grade in row.items()} for query, row in dataset.qrels.items()}
    return {
        "corpus": _arrow_table(dataset.corpus, directory / "corpus.arrow", ("id", "title", "text")),
        "queries": _arrow_table(queries, directory / "queries.arrow", ("id", "text")),
        "relevant_docs": relevant,
        "top_ranked": None,
    }


def _arrow_table(rows: Iterable[Mapping[str, str]], path: Path, columns: Sequence[str]) -> Any:
    """Stream rows of strings into an Arrow file and open it memory-mapped, as a `datasets.Dataset`."""
    # `load_dataset` takes the first line of each file for a header once a .tsv lies beside, and caches by name.
    import pyarrow
    from datasets import Dataset as Table

    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pyarrow.schema([(column, pyarrow.string()) for column in columns])
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
        stream = iter(rows)
        while batch := list(itertools.islice(stream, _ROWS)):
            values = {column: [row[column] for row in batch] for column in columns}
            writer.write_batch(pyarrow.RecordBatch.from_pydict(values, schema=schema))
    return Table.from_file(str(path))


class TaskCorpus(Corpus):
    """Documents of an mteb corpus (a `datasets` table), read row by row; of rows with one id, the first."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, str]]:
        seen: set[str] = set()
        for row in self._rows:
            if row["id"] not in seen:
                seen.add(row["id"])
                yield {"id": row["id"], "title": row.get("title") or "", "text": row["text"] or ""}


def query_texts(queries: Any) -> list[str]:
    """Texts of an mteb query table as mteb joins them: text and instruction; conversations as one text."""
    columns = getattr(queries, "column_names", None) or list(queries)
    instructions = queries["instruction"] if "instruction" in columns else [None] * len(queries["id"])
    return [_query_text(text, extra) for text, extra in zip(queries["text"], instructions, strict=True)]


def _query_text(text: Any, instruction: str | None) -> str:
    if isinstance(text, str):
        return text if instruction is None else f"{text} {instruction}"
    turns = [turn if isinstance(turn, str) else f"{turn['role']}: {turn['content']}" for turn in text]
    return "; ".join(turns) if instruction is None else f"{instruction} {'; '.join(turns)}"


def split_dataset(task: Any, subset: str, split: str) -> Dataset:
    """One split of a loaded retrieval task as this package's dataset; queries without judgements are left out."""
    data = task.dataset[subset][split]
    texts = dict(zip(data["queries"]["id"], query_texts(data["queries"]), strict=True))
    qrels = {query: dict(grades) for query, grades in data["relevant_docs"].items() if grades and query in texts}
    revision = str(task.metadata.dataset["revision"])
    queries = {query: texts[query] for query in qrels}
    return Dataset(task.metadata.name, TaskCorpus(data["corpus"]), queries, qrels, split, revision)


def context_pools(task: Any) -> Iterator[tuple[list[Key], list[str]]]:
    """Texts to sample contexts from, of a loaded task that is not searched.

    Each list of texts comes with the (subset, split) pairs that share it, named as mteb names them when it encodes.
    """
    if task.metadata.type in TRAIN_TYPES:
        for subset in task.hf_subsets:
            keys = [(subset, split) for split in dict.fromkeys([task.train_split, *task.eval_splits])]
            yield keys, _texts(_rows_of(task, subset, task.train_split), _input_columns(task))
        return
    for split in task.eval_splits:
        if getattr(task, "parallel_subsets", False):
            # One table for all language pairs; mteb then names the encoded column as the subset.
            rows = task.dataset[split]
            languages = sorted({language for pair in task.hf_subsets for language in pair.split("-")})
            yield [(name, split) for name in [*languages, *task.hf_subsets]], _texts(rows, languages)
            continue
        for subset in task.hf_subsets:
            yield [(subset, split)], _texts(_rows_of(task, subset, split), _input_columns(task))


def _rows_of(task: Any, subset: str, split: str) -> Any:
    """Rows of a subset; monolingual tasks may leave out that level."""
    return task.dataset[subset][split] if subset in task.dataset else task.dataset[split]


def _input_columns(task: Any) -> list[str]:
    """Columns of input text: both of a pair; never labels, nor the candidate labels of zero-shot classification."""
    kind = task.metadata.type
    if kind == "STS":
        columns = task.column_names
    elif kind == "PairClassification":
        columns = (task.input1_column_name, task.input2_column_name)
    elif kind == "BitextMining":
        columns = ("sentence1", "sentence2")
    elif kind == "Summarization":  # the original texts, which the task itself never encodes
        columns = getattr(task, "text_column_name", "text")
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
