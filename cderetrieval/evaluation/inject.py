"""A BEIR folder as the data of a real mteb task: its metadata and evaluator, no network, no private name.

The folder is read by this package's own reader. `datasets.load_dataset` on a local folder reads the first line of each
file as a header once a .tsv lies beside the .jsonl, and caches by the folder's name, so that edited files are served as
they were. Here the revision of the task is a digest of the content, and the corpus is written to one Arrow file that
is memory-mapped: a corpus of any size costs no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..corpora.beir_folder import read_beir, splits
from ..corpora.dataset import Corpus, Dataset
from ..errors import InputError

_ROWS = 10_000


def inject(task: Any, folder: Path, directory: Path, wanted: Sequence[str] | None = None) -> None:
    """Give a retrieval task the data of a folder.

    Parameters
    ----------
    task
        A fresh mteb retrieval task; its metadata says afterwards where the data came from.
    folder
        A BEIR folder.
    directory
        Where to write the Arrow files; they must stay until the task has been evaluated.
    wanted
        Splits; None: those the task is evaluated on.

    Raises
    ------
    InputError
        If the folder lacks a split or cannot be read, or the task has several subsets.
    """
    if len(task.hf_subsets) != 1:
        raise InputError(
            f"{task.metadata.name} has {len(task.hf_subsets)} subsets ({', '.join(task.hf_subsets[:5])}, ...) and a "
            "folder holds one. Evaluate it as a dataset of its own: give it another name with --data NAME=FOLDER."
        )
    there = splits(folder)
    asked = list(wanted or task.eval_splits)
    missing = [split for split in asked if split not in there]
    if missing:
        raise InputError(
            f"{folder} has no split {missing[0]!r}, on which {task.metadata.name} is evaluated; it has "
            f"{', '.join(there)}. Choose one with --split."
        )
    datasets = {split: read_beir(folder, split) for split in asked}
    revision = "-".join(dataset.revision for dataset in datasets.values())
    source = {"path": str(folder), "revision": revision}
    task.metadata = task.metadata.model_copy(update={"dataset": source, "eval_splits": asked})
    task.dataset = {
        task.hf_subsets[0]: {split: task_data(dataset, directory / split) for split, dataset in datasets.items()}
    }
    task.data_loaded = True


def task_data(dataset: Dataset, directory: Path) -> dict[str, Any]:
    """One split as mteb's retrieval tasks hold it."""
    queries = ({"id": query, "text": text} for query, text in dataset.queries.items())
    # trec_eval gives grades below 1 no gain, and pytrec_eval writes outside its arrays for grades below -1.
    relevant = {query: {doc: max(0, grade) for doc, grade in row.items()} for query, row in dataset.qrels.items()}
    return {
        "corpus": arrow_table(dataset.corpus, directory / "corpus.arrow", ("id", "title", "text")),
        "queries": arrow_table(queries, directory / "queries.arrow", ("id", "text")),
        "relevant_docs": relevant,
        "top_ranked": None,
    }


def arrow_table(rows: Iterable[Mapping[str, str]], path: Path, columns: Sequence[str]) -> Any:
    """Stream rows of strings into an Arrow file and open it memory-mapped, as a `datasets.Dataset`."""
    import pyarrow
    from datasets import Dataset as Table

    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pyarrow.schema([(column, pyarrow.string()) for column in columns])
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
        stream = iter(rows)
        while batch := list(islice(stream, _ROWS)):
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
    """Texts of an mteb query table as mteb joins them: text and instruction; conversations as one text.

    >>> query_texts({"id": ["q"], "text": [[{"role": "user", "content": "hello"}, {"role": "bot", "content": "yes?"}]]})
    ['user: hello; bot: yes?']
    """
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
