"""BERT's tokenizer by the library tokenizers alone: transformers takes half a second to import.

Its file is read as transformers would read it, or not at all: transformers makes the tokenizer of some classes anew
from the settings beside the file, and only where both say the same is the file enough.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .directory import is_regular, read_object
from .trusted import tokenizer_config

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_CLASSES = ("BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
# Settings that change no token as they are here.
_WITHOUT_EFFECT = {
    *("name_or_path", "do_basic_tokenize", "tokenizer_class", "model_max_length", "backend", "is_local"),
    *("local_files_only", "clean_up_tokenization_spaces", "max_length", "stride", "truncation_strategy"),
    *("chat_template", "padding_side", "pad_to_multiple_of", "pad_token_type_id", "special_tokens_map_file"),
}
# Settings of BERT's normalizer: name in the file, and what transformers takes where the settings do not say.
_NORMALIZER = {
    "do_lower_case": ("lowercase", True),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
    "strip_accents": ("strip_accents", None),
}
# As transformers has it where the settings do not say.
_NO_LIMIT = int(1e30)
# Arguments of a call of what is not given.
_NOT_GIVEN = ("padding", "return_attention_mask", "return_token_type_ids")


# Held in each call of a tokenizer of transformers: threads share the length at which it cuts.
TURN = threading.RLock()


class Encoded(dict[str, list[Any]]):
    """Token ids of texts, and the encodings of the library."""

    encodings: list[Any]


class WordPieces:
    """A tokenizer that is called as those of transformers; for all else `full` loads theirs."""

    is_fast = True
    turn = contextlib.nullcontext()
    model_input_names = ("input_ids", "token_type_ids", "attention_mask")

    pad_token_id: int
    model_max_length: int

    def __init__(self, text: str, size: int, full: Callable[[], Any]) -> None:
        self._text, self._size, self._full = text, size, full
        self._cut: dict[int | None, Tokenizer] = {}

    @cached_property
    def full(self) -> Any:
        """The tokenizer of transformers."""
        return self._full()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for by copying and pickling, before there is anything
            raise AttributeError(name)
        return getattr(self.full, name)

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizer of the library, which cuts no text."""
        return self._cut.get(None) or self._cutting(None)

    def _cutting(self, max_length: int | None) -> Tokenizer:
        """The tokenizer that cuts texts at a length: one for each, because threads share them."""
        from tokenizers import Tokenizer

        found = Tokenizer.from_str(self._text)
        found.no_padding()
        found.no_truncation() if max_length is None else found.enable_truncation(max_length)
        return self._cut.setdefault(max_length, found)

    def __len__(self) -> int:
        return self._size

    def __call__(
        self,
        texts: str | Sequence[str],
        *,
        truncation: bool = False,
        max_length: int | None = None,
        add_special_tokens: bool = True,
        return_offsets_mapping: bool = False,
        verbose: bool = True,
        **more: Any,
    ) -> Any:
        """Token ids of a text or of several, ``"input_ids"``, and where in it they are, ``"offset_mapping"``."""
        usual = truncation in (True, False) and not (truncation and max_length is None)
        for name, value in more.items():
            usual = usual and name in _NOT_GIVEN and not value
        if not usual:
            more |= {"truncation": truncation, "max_length": max_length, "add_special_tokens": add_special_tokens}
            return self.full(texts, return_offsets_mapping=return_offsets_mapping, verbose=verbose, **more)
        length = max_length if truncation else None
        tokenizer = self._cut.get(length) or self._cutting(length)
        encode = tokenizer.encode_batch if return_offsets_mapping else tokenizer.encode_batch_fast
        one = isinstance(texts, str)
        found = encode([texts] if one else list(texts), add_special_tokens=add_special_tokens)
        encoded = Encoded(input_ids=list(map(attrgetter("ids"), found)))
        if return_offsets_mapping:
            encoded["offset_mapping"] = list(map(attrgetter("offsets"), found))
        encoded.encodings = found
        if one:
            for name, (value,) in encoded.items():
                encoded[name] = value
        return encoded


def read_word_pieces(directory: Path, full: Callable[[], Any], *, lower_case: bool) -> WordPieces | None:
    """The tokenizer of a directory, where its file says all of it."""
    settings, path = read_object(directory / "tokenizer_config.json"), directory / "tokenizer.json"
    settings = tokenizer_config(settings, "")
    values = read_object(path)
    tokens = {token["content"]: token for token in values["added_tokens"]}
    usual = (
        values["model"]["type"] == "WordPiece"
        and values["decoder"] == {"type": "WordPiece", "prefix": "##", "cleanup": True}
        and values["pre_tokenizer"] == {"type": "BertPreTokenizer"}
        and values["normalizer"] == _normalizer(settings)
        and values["normalizer"]["lowercase"] >= lower_case
        and not is_regular(directory / "added_tokens.json")
        and settings.get("tokenizer_class") in _CLASSES
        and all(_is_usual(name, value, tokens) for name, value in settings.items())
        and all(token["special"] and not token["normalized"] for token in tokens.values())
        and set(map(settings.get, SPECIAL)) == set(tokens)
        and settings["unk_token"] == values["model"]["unk_token"]
    )
    if usual and is_regular(directory / "special_tokens_map.json"):
        named = read_object(directory / "special_tokens_map.json")
        usual = all(name in SPECIAL and _content(value) == settings[name] for name, value in named.items())
    if not usual or not _frames(values["post_processor"], settings, tokens):
        return None
    found = WordPieces(path.read_text(encoding="utf-8"), len({*values["model"]["vocab"], *tokens}), full)
    found.pad_token_id = tokens[settings["pad_token"]]["id"]
    found.model_max_length = settings.get("model_max_length", _NO_LIMIT)
    return found


def _normalizer(settings: dict[str, Any]) -> dict[str, Any]:
    made = {name: settings.get(setting, usual) for setting, (name, usual) in _NORMALIZER.items()}
    return {"type": "BertNormalizer", "clean_text": True, **made}


def _is_usual(name: str, value: Any, tokens: dict[str, Any]) -> bool:
    """Whether a setting says nothing but what the file says."""
    if name == "added_tokens_decoder":
        listed = {str(token["id"]): {**token, "id": None} for token in tokens.values()}
        return {number: {**token, "id": None} for number, token in value.items()} == listed
    if name == "truncation_side":
        return bool(value == "right")
    return name in _WITHOUT_EFFECT or name in SPECIAL or name in _NORMALIZER or not value


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _frames(processor: Any, settings: dict[str, Any], tokens: dict[str, Any]) -> bool:
    """Whether a text is put between the special tokens that the settings name, and nothing else is done to it."""
    first, last = settings["cls_token"], settings["sep_token"]
    text = {"Sequence": {"id": "A", "type_id": 0}}
    around = [{"SpecialToken": {"id": name, "type_id": 0}} for name in (first, last)]
    named = {name: {"id": name, "ids": [tokens[name]["id"]], "tokens": [name]} for name in (first, last)}
    return bool(
        processor["type"] == "TemplateProcessing"
        and processor["single"] == [around[0], text, around[1]]
        and processor["special_tokens"] == named
    )
