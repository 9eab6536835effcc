"""Model directories that try to run code, ask a question or reach a network when they are loaded.

Each entry of `HOSTILE` changes a copy of a good directory of one family. If its payload runs, a file appears at the
path of the marker: code of the directory writes it, and so do the guards that a caller puts around `input` and sockets.
`tests/models/test_hostile_directories.py` loads all of them by every way there is.

    python -c "import hostile_models as h; h.write(h.HOSTILE[0], '/tmp/hostile', '/tmp/ran')"
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = "sentence_bert_config.json"
OLDER = [
    f"sentence_{name}_config.json" for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
TRUST = "_".join(("trust", "remote", "code"))
UNPICKLE = {"_".join(("weights", "only")): False, "use_safetensors": False, "dtype": "auto"}
# Families whose root is a transformer that sentence-transformers reads.
SENTENCE = ("dense", "centre", "splade", "sparse-embed")
EVERY = (*SENTENCE, "masked-lm", "contextual")


@dataclass(frozen=True)
class Hostile:
    """One attack on one family; `change` gets a copy of a good directory, and the marker."""

    name: str
    family: str
    change: Callable[[Path, Path], None]


HOSTILE: list[Hostile] = []


def base(family: str) -> Path:
    """A good directory of a family."""
    from cderetrieval import testing

    if family == "contextual":
        return Path(testing.tiny_model_directory())
    if family == "sparse-embed":
        return Path(testing.tiny_sparse_embed_directory())
    return Path(
        testing.tiny_splade_directory() if family in ("splade", "masked-lm") else testing.tiny_dense_directory()
    )


def write(hostile: Hostile, directory: str | Path, marker: str | Path) -> Path:
    """Write a hostile directory; `marker` appears if its payload runs."""
    directory, marker = Path(directory), Path(marker)
    copy_good(hostile.family, directory)
    hostile.change(directory, marker)
    return directory


def copy_good(family: str, directory: Path) -> None:
    """Write a good directory of a family."""
    shutil.copytree(base(family), directory)
    if family == "centre":
        (directory / "statistics.json").write_text("{}")
    if family == "masked-lm":
        for name in ("modules.json", ROOT, "config_sentence_transformers.json"):
            (directory / name).unlink()


def attack(*families: str, name: str | None = None) -> Callable:
    """Put a function among `HOSTILE`, for each of some families."""

    def add(change: Callable) -> Callable:
        label = name or change.__name__.strip("_")
        HOSTILE.extend(Hostile(f"{family}-{label}", family, change) for family in families)
        return change

    return add


class Touch:
    """A pickle of it touches a file when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(self.marker),)


def pickled(path: Path, marker: Path) -> None:
    """Write weights that run code."""
    import torch

    torch.save({"x": Touch(marker), "weight": torch.zeros(2)}, path)


def code(directory: Path, marker: Path, name: str = "payload") -> None:
    """Write a module of Python that touches the marker when it is imported."""
    text = f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Payload:\n    pass\n"
    (directory / f"{name}.py").write_text(text)


def edit(path: Path, **changes: object) -> None:
    """Change values of a JSON object, which may be a new one."""
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**values, **changes}))


def drop(path: Path, *keys: str) -> None:
    """Leave out values of a JSON object."""
    values = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in values.items() if key not in keys}))


# --- Arguments that sentence-transformers hands to the loaders of transformers.


def _argument(file: str, key: str, values: dict) -> Callable[[Path, Path], None]:
    def change(directory: Path, marker: Path) -> None:
        code(directory, marker)
        for name in ("pytorch_model.bin", "weights.model", "adapter_model.bin"):
            pickled(directory / name, marker)
        drop(directory / "config.json", "dtype")
        if file != ROOT:
            (directory / ROOT).unlink()
        edit(directory / file, **{key: values})

    return change


_AUTO = {"AutoConfig": "payload.Payload", "AutoModel": "payload.Payload", "AutoTokenizer": ["payload.Payload", None]}
_ARGUMENTS = {
    "unpickled": UNPICKLE,
    "no_safetensors": {"use_safetensors": False},
    "trusted": {TRUST: True, **UNPICKLE},
    "named_weights": {"transformers_weights": "weights.model", **UNPICKLE},
    "variant": {"variant": "evil", **UNPICKLE},
    "gguf": {"gguf_file": "weights.model"},
    "subfolder": {"subfolder": "..", **UNPICKLE},
    "adapter": {"adapter_kwargs": {"_adapter_model_path": "someone/adapter"}},
    "kernel": {"attn_implementation": "someone/kernel"},
    "all_kernels": {"attn_implementation": "someone/kernel", "allow_all_kernels": True},
    "use_kernels": {"use_kernels": True, "kernel_config": {"kernel_mapping": {"RMSNorm": "someone/kernel:Layer"}}},
    "quantization": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    "state": {"state_dict": "pytorch_model.bin"},
    "generate": {"custom_generate": "someone/generate"},
    "device_map": {"device_map": "auto", "offload_folder": "/tmp", **UNPICKLE},
}
for _name, _values in _ARGUMENTS.items():
    attack("dense", "splade", name=f"model_kwargs_{_name}")(_argument(ROOT, "model_kwargs", _values))
    attack("centre", "sparse-embed", name=f"model_args_{_name}")(_argument(ROOT, "model_args", _values))
for _file in OLDER:
    attack("dense", name=f"{_file}_model_args")(_argument(_file, "model_args", UNPICKLE))
for _key in ("config_args", "config_kwargs"):
    for _name, _values in {
        "auto_map": {"auto_map": _AUTO, "model_type": "unknown"},
        "file": {"_configuration_file": "other.json"},
        "kernel": {"attn_implementation": "someone/kernel"},
        "weights": {"transformers_weights": "weights.model"},
        "adapter": {"transformers_weights": "adapter_model.bin"},
    }.items():
        attack("dense", "splade", name=f"{_key}_{_name}")(_argument(ROOT, _key, _values))
for _key in ("tokenizer_args", "processor_kwargs"):
    for _name, _values in {
        "auto_map": {"auto_map": _AUTO, "tokenizer_type": "bert"},
        "file": {"tokenizer_file": "/dev/stdin"},
        "gguf": {"gguf_file": "weights.model"},
        "mistral": {"mistral_format": True},
    }.items():
        attack("dense", name=f"{_key}_{_name}")(_argument(ROOT, _key, _values))


@attack(*SENTENCE)
def _tokenizer_on_the_hub(directory: Path, marker: Path) -> None:
    edit(directory / ROOT, tokenizer_name_or_path="someone/tokenizer")


@attack(*SENTENCE)
def _tokenizer_elsewhere(directory: Path, marker: Path) -> None:
    other = directory / "other"
    shutil.copytree(base("dense"), other)
    _tokenizer_with_code(other, marker)
    edit(directory / ROOT, tokenizer_name_or_path=str(other))


@attack("dense", "splade")
def _another_backend(directory: Path, marker: Path) -> None:
    (directory / "onnx").mkdir()
    pickled(directory / "onnx" / "model.onnx", marker)
    edit(directory / ROOT, backend="onnx")


@attack("dense", "splade")
def _method_of_the_model(directory: Path, marker: Path) -> None:
    modality = {"text": {"method": "load_adapter", "method_output_name": "last_hidden_state"}}
    edit(directory / ROOT, modality_config=modality, module_output_name="token_embeddings")


@attack("dense")
def _chat_template_of_processing(directory: Path, marker: Path) -> None:
    edit(directory / ROOT, processing_kwargs={"chat_template": {"chat_template": "{{ cycler.__init__ }}"}})


@attack("dense")
def _another_task(directory: Path, marker: Path) -> None:
    edit(directory / ROOT, transformer_task="any-to-any")


# --- config.json of the transformer.


@attack(*EVERY)
def _config_with_code(directory: Path, marker: Path) -> None:
    code(directory, marker)
    edit(directory / "config.json", auto_map=_AUTO, model_type="unknown")


@attack(*EVERY)
def _config_with_code_on_the_hub(directory: Path, marker: Path) -> None:
    auto = {"AutoConfig": "someone/code--payload.Payload", "AutoModelForMaskedLM": "someone/code--payload.Payload"}
    edit(directory / "config.json", auto_map=auto, model_type="unknown")


@attack(*SENTENCE, "masked-lm")
def _config_of_a_known_type_with_code(directory: Path, marker: Path) -> None:
    code(directory, marker)
    auto = {**_AUTO, "AutoModelForMaskedLM": "payload.Payload", "AutoProcessor": "payload.Payload"}
    edit(directory / "config.json", auto_map=auto)


@attack(*SENTENCE, "masked-lm")
def _config_names_weights(directory: Path, marker: Path) -> None:
    pickled(directory / "adapter_model.bin", marker)
    edit(directory / "config.json", transformers_weights="adapter_model.bin")


@attack(*SENTENCE, "masked-lm")
def _config_names_an_index(directory: Path, marker: Path) -> None:
    pickled(directory / "x.bin", marker)
    (directory / "evil.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x.bin"}}))
    edit(directory / "config.json", transformers_weights="evil.safetensors.index.json")


@attack(*SENTENCE, "masked-lm")
def _config_with_a_kernel(directory: Path, marker: Path) -> None:
    edit(directory / "config.json", attn_implementation="someone/kernel", _attn_implementation="someone/kernel")


@attack("dense", "masked-lm")
def _config_with_a_hidden_kernel(directory: Path, marker: Path) -> None:
    edit(directory / "config.json", _attn_implementation_internal="someone/kernel", experts_implementation="a/b")


@attack(*SENTENCE)
def _config_with_a_quantizer(directory: Path, marker: Path) -> None:
    edit(directory / "config.json", quantization_config={"quant_method": "gptq", "bits": 4, "tokenizer": "a/b"})


@attack("dense")
def _config_that_points_to_another(directory: Path, marker: Path) -> None:
    edit(directory / "config.json", configuration_files=["config.5.0.0.json"])
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.5.0.0.json").write_text(json.dumps({**config, "auto_map": _AUTO, "model_type": "unknown"}))
    code(directory, marker)


@attack(*SENTENCE, "masked-lm")
def _config_with_another_dtype(directory: Path, marker: Path) -> None:
    edit(directory / "config.json", dtype="hub", torch_dtype="load")


@attack("dense", "centre", "masked-lm")
def _config_of_a_retriever(directory: Path, marker: Path) -> None:
    edit(directory / "config.json", model_type="rag", index_name="legacy", index_path=str(directory))


@attack("dense", "masked-lm")
def _config_of_a_timm_model(directory: Path, marker: Path) -> None:
    edit(directory / "config.json", model_type="timm_wrapper", architecture="hf_hub:someone/model", do_pooling=True)


@attack("dense")
def _config_with_a_part_of_another_type(directory: Path, marker: Path) -> None:
    edit(directory / "config.json", model_type="clip", vision_config={"model_type": "timm_backbone", "backbone": "a/b"})


@attack(*SENTENCE, "masked-lm")
def _generation_with_code(directory: Path, marker: Path) -> None:
    (directory / "custom_generate").mkdir()
    code(directory / "custom_generate", marker, "generate")
    edit(directory / "generation_config.json", custom_generate=str(directory))
    edit(directory / "config.json", custom_generate=str(directory))


# --- Tokenizers and processors.


@attack(*EVERY)
def _tokenizer_with_code(directory: Path, marker: Path) -> None:
    code(directory, marker)
    auto = {"AutoTokenizer": ["payload.Payload", "payload.Payload"], "AutoProcessor": "payload.Payload"}
    edit(directory / "tokenizer_config.json", tokenizer_class="Payload", auto_map=auto)


@attack(*EVERY)
def _tokenizer_with_code_in_the_old_form(directory: Path, marker: Path) -> None:
    code(directory, marker)
    drop(directory / "tokenizer_config.json", "tokenizer_class")
    edit(directory / "tokenizer_config.json", auto_map=["payload.Payload", "payload.Payload"])


@attack(*EVERY)
def _tokenizer_with_code_on_the_hub(directory: Path, marker: Path) -> None:
    auto = {"AutoTokenizer": ["someone/code--payload.Payload", None]}
    edit(directory / "tokenizer_config.json", tokenizer_class="PayloadTokenizer", auto_map=auto)


@attack(*EVERY)
def _tokenizer_of_any_class(directory: Path, marker: Path) -> None:
    pickled(directory / "pytorch_model.bin", marker)
    edit(directory / "tokenizer_config.json", tokenizer_class="RagRetriever")


@attack("dense", "masked-lm", "contextual")
def _tokenizer_of_any_function(directory: Path, marker: Path) -> None:
    edit(directory / "tokenizer_config.json", tokenizer_class="pipeline")


@attack("dense", "splade", "contextual")
def _tokenizer_of_other_files(directory: Path, marker: Path) -> None:
    files = {"vocab_file": "/dev/stdin", "tokenizer_file": "/dev/stdin", "special_tokens_map_file": "/dev/stdin"}
    edit(directory / "tokenizer_config.json", **files, fast_tokenizer_files=["tokenizer.../../../dev/stdin"])


@attack(*SENTENCE, "masked-lm")
def _config_names_a_tokenizer_class(directory: Path, marker: Path) -> None:
    drop(directory / "tokenizer_config.json", "tokenizer_class")
    edit(directory / "config.json", tokenizer_class="AutoModel", processor_class="AutoModel")


def _processor(file: str) -> Callable[[Path, Path], None]:
    def change(directory: Path, marker: Path) -> None:
        code(directory, marker)
        kinds = ("AutoProcessor", "AutoImageProcessor", "AutoFeatureExtractor", "AutoVideoProcessor", "AutoTokenizer")
        auto = dict.fromkeys(kinds, "payload.Payload")
        edit(directory / file, auto_map=auto, image_processor_type="PayloadProcessor")

    return change


for _file in ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"):
    attack("dense", "splade", "masked-lm", name=f"code_in_{_file}")(_processor(_file))


@attack("dense", "splade")
def _processor_of_any_class(directory: Path, marker: Path) -> None:
    edit(directory / "processor_config.json", processor_class="AutoModel")


# --- Weights.


@attack(*EVERY)
def _only_pickled(directory: Path, marker: Path) -> None:
    (directory / "model.safetensors").unlink()
    pickled(directory / "pytorch_model.bin", marker)


@attack(*EVERY)
def _an_index_of_pickles(directory: Path, marker: Path) -> None:
    (directory / "model.safetensors").unlink()
    pickled(directory / "pytorch_model-00001-of-00001.bin", marker)
    named = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "pytorch_model-00001-of-00001.bin"}}
    for name in ("pytorch_model.bin.index.json", "model.safetensors.index.json"):
        (directory / name).write_text(json.dumps(named))


@attack(*SENTENCE)
def _an_index_that_leads_out(directory: Path, marker: Path) -> None:
    outside = directory.parent / f"{directory.name}-outside"
    (directory / "model.safetensors").rename(outside)
    named = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": f"../{outside.name}"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(named))


@attack(*SENTENCE, "masked-lm")
def _an_adapter(directory: Path, marker: Path) -> None:
    pickled(directory / "adapter_model.bin", marker)
    named = {
        "peft_type": "LORA",
        "base_model_name_or_path": "someone/model",
        "auto_mapping": {"parent_library": "payload"},
    }
    (directory / "adapter_config.json").write_text(json.dumps(named))


@attack("sparse-embed")
def _pickled_term_pooling(directory: Path, marker: Path) -> None:
    shutil.rmtree(directory / "2_SparseEmbed")
    pickled(directory / "linear.pt", marker)


@attack("sparse-embed")
def _pickled_weights_in_the_folder(directory: Path, marker: Path) -> None:
    (directory / "2_SparseEmbed" / "model.safetensors").unlink()
    pickled(directory / "2_SparseEmbed" / "pytorch_model.bin", marker)


# --- modules.json.


def _module(type_name: str, path: object = "9_Module", **config: object) -> Callable[[Path, Path], None]:
    def change(directory: Path, marker: Path) -> None:
        add_module(directory, marker, type_name, path, config)

    return change


def add_module(directory: Path, marker: Path, type_name: str, path: object, config: dict) -> None:
    """Append a module, with pickled weights and code in its folder."""
    listed = json.loads((directory / "modules.json").read_text())
    listed.append({"idx": len(listed), "name": str(len(listed)), "path": path, "type": type_name})
    (directory / "modules.json").write_text(json.dumps(listed))
    folder = directory / "9_Module"
    folder.mkdir()
    for name in ("pytorch_model.bin", "model.bin", "weights.pt"):
        pickled(folder / name, marker)
    for place in (directory, folder):
        code(place, marker)
    kinds = {"WordEmbeddings": "wordembedding_", "Router": "router_", "LSTM": "lstm_", "CLIPModel": "sentence_bert_"}
    for name in {"", kinds.get(type_name.rpartition(".")[2], "")}:
        (folder / f"{name}config.json").write_text(json.dumps(config))


_ST = "sentence_transformers"
_DENSE = {"in_features": 32, "out_features": 32, "bias": False}
_MODULES = {
    "own_code": ("payload.Payload", {}),
    "own_code_in_a_folder": ("9_Module.payload.Payload", {}),
    "code_on_the_hub": ("someone/code--payload.Payload", {}),
    "os_system": ("os.system", {}),
    "a_library": (f"{_ST}.base.model.torch", {}),
    "a_pickle": (f"{_ST}.base.model.pickle", {}),
    "an_importer": (f"{_ST}.util.misc.importlib", {}),
    "a_function": (f"{_ST}.util.misc.import_from_string", {}),
    "a_model": (f"{_ST}.SentenceTransformer", {}),
    "a_class_of_transformers": ("transformers.RagRetriever", {}),
    "pickled_dense": (f"{_ST}.models.Dense", _DENSE),
    "pickled_lstm": (f"{_ST}.models.LSTM", {"embedding_dimension": 32, "hidden_dim": 16}),
    "pickled_layer_norm": (f"{_ST}.models.LayerNorm", {"dimension": 32}),
    "pickled_static": (f"{_ST}.models.StaticEmbedding", {}),
    "pickled_autoencoder": (f"{_ST}.sparse_encoder.modules.SparseAutoEncoder", {"input_dim": 32, "hidden_dim": 64}),
    "activation_of_a_file": (f"{_ST}.models.Dense", {**_DENSE, "activation_function": "payload.Payload"}),
    "activation_of_torch": (f"{_ST}.models.Dense", {**_DENSE, "activation_function": "torch.hub.load"}),
    "activation_that_loads": (f"{_ST}.models.Dense", {**_DENSE, "activation_function": "torch.serialization.load"}),
    "words_by_code": (f"{_ST}.models.WordEmbeddings", {"tokenizer_class": "payload.Payload"}),
    "words_by_a_library": (f"{_ST}.models.WordEmbeddings", {"tokenizer_class": f"{_ST}.base.model.torch"}),
    "weights_of_queries_elsewhere": (f"{_ST}.sparse_encoder.modules.SparseStaticEmbedding", {"path": "a/idf.json"}),
    "clip": (f"{_ST}.models.CLIPModel", {"model_type": "clip", "auto_map": _AUTO}),
    "router_with_code": (
        f"{_ST}.models.Router",
        {"types": {"a": "payload.Payload"}, "structure": {"query": ["a"], "document": ["a"]}, "parameters": {}},
    ),
    "router_that_leads_out": (
        f"{_ST}.models.Asym",
        {"types": {"../..": f"{_ST}.models.Dense"}, "structure": {"query": ["../.."]}, "parameters": {}},
    ),
    "router_in_itself": (
        f"{_ST}.models.Router",
        {"types": {".": f"{_ST}.models.Router"}, "structure": {"query": ["."]}, "parameters": {}},
    ),
}
for _name, (_type, _config) in _MODULES.items():
    attack("dense", "splade", name=f"module_{_name}")(_module(_type, **_config))
    attack("centre", "sparse-embed", name=f"module_{_name}")(_module(_type, **_config))
for _name, _path in {"up": "../", "root": "/", "number": 7, "nul": "a\0b", "drive": "C:\\x", "none": None}.items():
    attack("dense", "splade", name=f"module_path_{_name}")(_module(f"{_ST}.models.Dense", _path, **_DENSE))


@attack("dense", "splade")
def _two_modules_of_one_folder(directory: Path, marker: Path) -> None:
    code(directory, marker)
    listed = json.loads((directory / "modules.json").read_text())
    pooling = {"idx": 9, "name": "9", "path": "./", "type": f"{_ST}.models.Pooling"}
    (directory / "modules.json").write_text(json.dumps([*listed, pooling]))
    settings = {"embedding_dimension": 32, "pooling_mode": "mean"}
    edit(directory / "config.json", attn_implementation="someone/kernel", transformers_weights="x.bin", **settings)


@attack("dense", "splade")
def _module_behind_a_link(directory: Path, marker: Path) -> None:
    add_module(directory, marker, f"{_ST}.models.Dense", "linked", _DENSE)
    outside = directory.parent / f"{directory.name}-outside"
    (directory / "9_Module").rename(outside)
    (directory / "linked").symlink_to(outside)


@attack("dense", "splade")
def _static_with_a_tokenizer_of_code(directory: Path, marker: Path) -> None:
    kind = f"{_ST}.sparse_encoder.modules.SparseStaticEmbedding"
    add_module(directory, marker, kind, "9_Module", {"frozen": True})
    shutil.copy(directory / "model.safetensors", directory / "9_Module")
    _tokenizer_with_code(directory / "9_Module", marker)


# --- What is no file.


def _pipe(name: str) -> Callable[[Path, Path], None]:
    def change(directory: Path, marker: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        os.mkfifo(directory / name)

    return change


def _standard_input(name: str) -> Callable[[Path, Path], None]:
    def change(directory: Path, marker: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to("/dev/stdin")

    return change


for _file in ("config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors", "modules.json", ROOT):
    attack("dense", "splade", name=f"pipe_{_file}")(_pipe(_file))
    attack("dense", name=f"standard_input_{_file}")(_standard_input(_file))
for _file in ("config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors"):
    attack("contextual", name=f"pipe_{_file}")(_pipe(_file))
attack("centre", name="pipe_statistics")(_pipe("statistics.json"))
attack("sparse-embed", name="pipe_term_pooling")(_pipe("2_SparseEmbed/config.json"))


# --- Contextual models.


@attack("contextual")
def _backbone_with_code(directory: Path, marker: Path) -> None:
    code(directory, marker)
    config = json.loads((directory / "config.json").read_text())
    more = {"auto_map": _AUTO, "transformers_weights": "adapter_model.bin", "attn_implementation": "someone/kernel"}
    config["settings"]["backbone"] |= more
    (directory / "config.json").write_text(json.dumps(config))


@attack("contextual")
def _backbone_with_a_kernel(directory: Path, marker: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    config["settings"]["backbone"] |= {"_attn_implementation": "someone/kernel", "use_kernels": True}
    (directory / "config.json").write_text(json.dumps(config))


@attack("contextual")
def _published_with_code(directory: Path, marker: Path) -> None:
    code(directory, marker)
    auto = {"AutoConfig": "payload.Payload", "AutoModel": "payload.Payload", "AutoTokenizer": "payload.Payload"}
    config = {"transductive_corpus_size": 4, "embedder": "nomic-ai/nomic-bert-2048", "auto_map": auto}
    (directory / "config.json").write_text(json.dumps(config))


@attack("contextual")
def _published_on_another_backbone(directory: Path, marker: Path) -> None:
    config = {"transductive_corpus_size": 4, "embedder": "someone/backbone", "model_type": "bert"}
    (directory / "config.json").write_text(json.dumps(config))


@attack("contextual")
def _published_without_a_tokenizer(directory: Path, marker: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    config = {"transductive_corpus_size": 4, "embedder": "answerdotai/ModernBERT-base"}
    (directory / "config.json").write_text(json.dumps(config))
