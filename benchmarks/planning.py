"""The tables of docs/planning.md, made from the results of the other benchmarks.

`report.py` writes them into the page, and a test compares. What was measured comes from `results/*.json`; what was not,
a GPU above all, is computed from a formula that the page states.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from common import read_result

from cderetrieval.index.choice import choose_factory
from cderetrieval.milvus.fields import HNSW

SIZES = (100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
DIMENSION = 384
CONTEXT = 512
TOKENS = 128
# Memory of machines that are easily rented, in GB.
MACHINES = (24, 128, 512)
MILLION = 1_000_000
HOUR = 3_600


@dataclass(frozen=True)
class Shape:
    """Width and number of layers of a BERT, and the share of a GPU's peak that it is assumed to reach."""

    width: int
    layers: int
    utilisation: float = 1.0

    def flops(self, tokens: int, context: int = 0, *, joint: bool = False) -> float:
        """Floating-point operations of one text: 24 h^2 a token and layer, and 4 h for each token that it attends to.

        Parameters
        ----------
        tokens
            Of the text.
        context
            Context embeddings.
        joint
            Whether they run through all layers with the text; else their keys and values are there.
        """
        own = tokens + context if joint else tokens
        return self.layers * own * (24.0 * self.width**2 + 4.0 * self.width * (tokens + context))


# Guesses: narrow matrices and short texts leave most of a GPU idle.
SHAPES = {"MiniLM": Shape(384, 6, 0.05), "BERT-base": Shape(768, 12, 0.3)}


@dataclass(frozen=True)
class Gpu:
    """Peak of dense bfloat16 matrix products, from the maker's data sheet, in FLOP a second."""

    name: str
    peak: float


GPUS = (Gpu("L4", 121e12), Gpu("A100", 312e12), Gpu("H100 SXM", 989e12))


def row(name: str, **wanted: Any) -> dict[str, Any]:
    """The first row of a benchmark's results that has these values; a value of ``...`` may be anything."""
    for found in read_result(name)["rows"]:
        if all(key in found and value in (..., found[key]) for key, value in wanted.items()):
            return dict(found)
    raise LookupError(f"results/{name}.json has no row with {wanted}")


def hours(seconds: float) -> str:
    """Seconds as hours, with two digits that matter."""
    value = seconds / HOUR
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def size(value: float) -> str:
    """Bytes in GB, or TB."""
    if value >= 1e12:
        return f"{value / 1e12:.1f} TB"
    return f"{value / 1e9:,.0f} GB" if value >= 1e10 else f"{value / 1e9:.2g} GB"


def batch(shape: str, tokens: int) -> dict[str, Any]:
    """What a text of whole batches costs, measured."""
    found = [r for r in read_result("context_cost")["rows"] if (r["shape"], r["tokens"]) == (shape, tokens)]
    return max(found, key=lambda r: r["texts"])


def cpu_table() -> list[dict[str, Any]]:
    """Hours of one core for a million texts, measured."""
    rows = []
    for shape in SHAPES:
        for tokens in (16, 64, 128):
            found = batch(shape, tokens)
            alone = found["plain_us_per_text"]
            rows.append(
                {
                    "shape": shape,
                    "tokens": tokens,
                    "without context": hours(alone),
                    "cached context": hours(alone * found["gated"]["median"]),
                    "joint context": hours(alone * found["joint"]["median"]),
                    "GFLOP a second": f"{SHAPES[shape].flops(tokens) / alone / 1e3:.0f}",
                }
            )
    return rows


def gpu_table() -> list[dict[str, Any]]:
    """Hours of one GPU for a million texts, computed."""
    rows = []
    for name, shape in SHAPES.items():
        for tokens in (128, 512):
            for kind, flops in (
                ("without context", shape.flops(tokens)),
                ("cached context", shape.flops(tokens, CONTEXT)),
                ("joint context", shape.flops(tokens, CONTEXT, joint=True)),
            ):
                seconds = {gpu.name: MILLION * flops / (shape.utilisation * gpu.peak) for gpu in GPUS}
                rows.append(
                    {
                        "shape": name,
                        "tokens": tokens,
                        "context": kind.removesuffix(" context"),
                        "GFLOP a text": f"{flops / 1e9:.3g}",
                        **{gpu: hours(value) for gpu, value in seconds.items()},
                    }
                )
    return rows


def measured_table() -> list[dict[str, Any]]:
    """Rates of everything else, measured."""
    parts = {"encode": _encoding, "embed": _blocks, "search": _adding, "large_index": _large, "sparse": _sparse}
    found = [(name, *line) for name, part in {**parts, "milvus": _milvus}.items() for line in part()]
    return [{"what": what, "measured": value, "from": f"`{name}.json`"} for name, what, value in found]


def _encoding() -> list[tuple[str, str]]:
    found, settings = row("encode", ours="float32", threads=2), read_result("encode")["settings"]
    characters = settings["characters"] // settings["documents"]
    text = f"embedding docstrings of {characters} characters, MiniLM, {found['threads']} cores"
    return [(text, _rate(found["documents_per_second"]))]


def _blocks() -> list[tuple[str, str]]:
    real, workers = row("embed", corpus="docstrings, MiniLM"), row("embed", steady=...)
    many = row("embed", corpus="repeated docstrings, no model")
    workers_text = (
        f"{workers['steady']['median']:.2f} times as fast; {workers['ray_start_seconds']:.0f} s until the first block"
    )
    return [
        (f"{real['documents']:,} docstrings by `cderetrieval embed`, one core", _rate(real["embed_per_second"])),
        ("the same by two Ray workers, after their start", workers_text),
        ("reading, checking and writing without a model", f"{many['embed_per_second']:,.0f} a second"),
        ("index from a folder of vectors", f"{many['index_per_second']:,.0f} a second"),
        ("a document of that corpus, as JSONL", f"{many['corpus_bytes_a_document']:,} bytes"),
        ("the same in a folder of vectors (without its text)", f"{many['vectors_bytes_a_document']:,} bytes"),
        ("the same in the store (with its text and vector)", f"{many['store_bytes_a_document']:,} bytes"),
    ]


def _adding() -> list[tuple[str, str]]:
    seconds = row("search", process="add")["add"]
    return [
        (
            "adding ready vectors to an index on disk",
            f"{read_result('search')['settings']['documents'] / seconds:,.0f} a second",
        )
    ]


def _large() -> list[tuple[str, str]]:
    built, opened = row("large_index", index=...), row("large_index", open_seconds=...)
    count = built["vectors"]
    answer = opened["open_seconds"] + opened["first_answer_seconds"]
    looked = f"{built['width']:,} of its {_lists(built['index']):,} lists"
    return [
        (f"building `{built['index']}` of {count:,} vectors, one core", f"{hours(built['build_cpu_seconds'])} h"),
        ("its size", f"{built['bytes_a_vector']:.0f} bytes a vector"),
        ("most memory while it is built", f"{_peak(built):.0f} bytes a vector"),
        (f"its recall@10 on held-out queries, looking at {looked}", f"{built['recall']:.4f}"),
        ("a query in a batch, CPU time of one core", f"{opened['batch_cpu_ms']:.3g} ms"),
        (
            "a query alone, median; 95 of 100 (others used the machine)",
            f"{opened['warm_p50_ms']:.3g} ms; {opened['warm_p95_ms']:.3g} ms",
        ),
        ("opening it, checksums included, and the first answer", f"{answer:.2g} s"),
    ]


def _sparse() -> list[tuple[str, str]]:
    found, settings = row("sparse", engine="numba"), read_result("sparse")["settings"]
    text = f"inverted index, {settings['terms_of_a_document']:.0f} terms a document"
    return [(text, f"{found['bytes a document']} bytes a document")]


def _milvus() -> list[tuple[str, str]]:
    built = row("milvus", engine="Milvus 2.3.5", index=...)
    rate = built["documents"] / built["first add s"]
    text = f"Milvus 2.3.5 on the same machine, first add of {built['documents']:,} ready vectors, HNSW built"
    asked = row("milvus", engine="Milvus 2.3.5", call="search, 1 query")
    return [(text, f"{rate:,.0f} a second"), ("Milvus 2.3.5, a query alone", f"{asked['retriever ms']:.2g} ms")]


def _rate(each: float) -> str:
    return f"{each:,.0f} a second; a million takes {hours(MILLION / each)} h"


def _peak(built: dict[str, Any]) -> float:
    """Bytes of memory a vector while an index is built."""
    return float(built["peak_memory_mb"] * 2**20 / built["vectors"])


def sizes_table() -> list[dict[str, Any]]:
    """What each number of documents asks for."""
    large, text = row("large_index", index=...), batch("MiniLM", TOKENS)
    seconds = large["build_cpu_seconds"] / large["vectors"]
    cpu = text["plain_us_per_text"] * text["gated"]["median"] / 1e6
    stored = row("embed", corpus="repeated docstrings, no model")["store_bytes_a_document"]
    shape = SHAPES["MiniLM"]
    gpu = shape.flops(TOKENS, CONTEXT) / (shape.utilisation * GPUS[-1].peak)
    rows = []
    for n in SIZES:
        factory = choose_factory(n, DIMENSION)
        flat = factory == "Flat"
        memory = n * (4 * DIMENSION if flat else _peak(large))
        rows.append(
            {
                "documents": f"{n:,}",
                "index": f"`{factory}`",
                "index on disk": size(n * (4 * DIMENSION if flat else large["bytes_a_vector"])),
                "store": size(n * stored),
                "memory to build": size(memory),
                "building, core hours": "0"
                if flat
                else hours(n * seconds * max(1.0, _lists(factory) / _lists(large["index"]))),
                "embedding, core hours": hours(n * cpu),
                "embedding, GPU hours": hours(n * gpu),
                "where": _where(memory),
            }
        )
    return rows


def server_table() -> list[dict[str, Any]]:
    """Memory of a Milvus cluster's query nodes, computed."""
    kinds = {
        "HNSW (the default)": 4 * DIMENSION + 8 * HNSW["M"],
        "IVF_SQ8": DIMENSION + 8,
        "IVF_FLAT": 4 * DIMENSION + 8,
    }
    usable = 0.75 * MACHINES[1] * 1e9
    rows = []
    for n in SIZES[2:]:
        for kind, each in kinds.items():
            nodes = max(1, -(-n * each // int(usable)))
            rows.append(
                {
                    "documents": f"{n:,}",
                    "index": kind,
                    "bytes a vector": f"{each:,}",
                    "memory": size(n * each),
                    f"query nodes of {MACHINES[1]} GB": f"{nodes:,}",
                }
            )
    return rows


def _lists(factory: str) -> int:
    found = re.match(r"IVF(\d+)", factory)
    return int(found[1]) if found else 0


def _where(memory: float) -> str:
    """The smallest machine that has a quarter more memory than that."""
    for machine in MACHINES:
        if 1.25 * memory <= machine * 1e9:
            return f"one machine of {machine} GB"
    return "Milvus on several"


TABLES = {
    "measured": measured_table,
    "cpu": cpu_table,
    "gpu": gpu_table,
    "sizes": sizes_table,
    "server": server_table,
}
