"""The head of a masked language model without its backbone, for every family that transformers has."""

import pytest
import torch
from transformers import AutoModelForMaskedLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from cderetrieval.models import mlm
from cderetrieval.models.mlm import logits_of_texts, mlm_head, token_states

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
FAMILIES = {
    "albert": {"embedding_size": 8},
    "bert": {},
    "camembert": {},
    "convbert": {"embedding_size": 16, "num_groups": 1, "conv_kernel_size": 3},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "electra": {"embedding_size": 8},
    "ernie": {},
    "esm": {"position_embedding_type": "rotary", "mask_token_id": 4, "token_dropout": False},
    "modernbert": {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    "mpnet": {},
    "nomic_bert": {"head_dim": 8},
    "roberta": {},
    "xlm-roberta": {},
}
IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 0, 0, 0], [12, 13, 14, 0, 0]])
MASK = (IDS > 0).long()


def tiny(family):
    names = {**SHAPE, **FAMILIES[family]}
    if family == "distilbert":
        names = {k: v for k, v in names.items() if k not in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_config(CONFIG_MAPPING[family](**names))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_real_tokens_give_the_logits_of_the_whole_model(family):
    model = tiny(family)
    features = {"input_ids": IDS, "attention_mask": MASK}
    with torch.no_grad():
        expected = model(**features).logits
        # Some tokenizers give these to models that do not take them.
        features["token_type_ids"] = torch.zeros_like(IDS)
        rows, lengths = token_states(model, features)
        found = dict(logits_of_texts(model, rows, lengths))
    assert lengths == [5, 2, 3]
    assert expected.std() > 0.01
    for text, length in enumerate(lengths):
        torch.testing.assert_close(found[text], expected[text, :length], atol=1e-5, rtol=1e-5)


def test_gradients_reach_the_model_through_the_head():
    model = tiny("bert")
    features = {"input_ids": IDS, "attention_mask": MASK}
    rows, lengths = token_states(model, features)
    sum(logits.square().sum() for _, logits in logits_of_texts(model, rows, lengths)).backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    (model(**features).logits.square() * MASK[..., None]).sum().backward()
    assert len(ours) > 10
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, atol=1e-3, rtol=1e-4)


def test_texts_are_given_to_the_head_a_few_at_a_time(monkeypatch):
    model = tiny("bert")
    seen = []
    model.cls.register_forward_hook(lambda module, given, output: seen.append(given[0].shape[1]))
    rows, lengths = token_states(model, {"input_ids": IDS, "attention_mask": MASK})
    for rows_at_once, calls in [(256, [10]), (7, [7, 3]), (5, [5, 5]), (1, [5, 2, 3])]:
        seen.clear()
        monkeypatch.setattr(mlm, "CPU_ROWS", rows_at_once)
        assert [text for text, _ in logits_of_texts(model, rows, lengths)] == [0, 1, 2]
        assert seen == calls


def test_a_text_without_tokens_has_logits_of_zero():
    model = tiny("bert")
    rows, lengths = token_states(model, {"input_ids": IDS, "attention_mask": MASK * torch.tensor([[1], [0], [1]])})
    found = dict(logits_of_texts(model, rows, lengths))
    assert lengths == [5, 0, 3]
    assert found[1].tolist() == [[0.0] * 50]


def test_the_head_leaves_the_model_as_it_is():
    model = tiny("bert")
    head = mlm_head(model)
    assert head.bert is not model.bert
    assert model.base_model is model.bert
    assert head.cls is model.cls
    assert model(IDS).logits.shape == (3, 5, 50)
