"""Settings of a contextual model: each contradiction is refused by name."""

import pytest

from cderetrieval.errors import ConfigError
from cderetrieval.models.config import ContextualConfig
from cderetrieval.testing import BACKBONES, tiny_model

BERT = BACKBONES["bert"]
CACHED = {"attention": "cached", "context_positions": "separate"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"attention": "both"}, "attention='both'"),
        ({"cached_form": "sum"}, "cached_form"),
        ({"context_positions": "first"}, "context_positions"),
        ({"text_embedding": "thrice"}, "text_embedding"),
        ({"first_stage": "none"}, "first_stage"),
        ({"first_stage_head": "residual"}, "first_stage_head"),
        ({"head": "linear"}, "head='linear'"),
        ({"pooling": "max"}, "pooling"),
        ({"pool_over": "context"}, "pool_over"),
        ({"context_size": 0}, "context_size=0"),
        ({"context_size": "512"}, "context_size='512'"),
        ({"tokens_per_document": 0}, "tokens_per_document"),
        ({"max_length": 0}, "max_length"),
        ({"layers": 0}, "layers=0"),
        ({"first_stage_layers": -1}, "first_stage_layers=-1"),
        ({"soft_prompt_tokens": -1}, "soft_prompt_tokens"),
        ({"sequence_dropout": 1.0, "null_token": True}, "sequence_dropout=1.0"),
        ({"sequence_dropout": 0.1}, "null_token=True"),
        ({"backbone": {"model_type": "gpt2", "hidden_size": 32}}, "model_type='gpt2'"),
        ({"first_stage_backbone": {"model_type": "t5"}}, "first_stage_backbone: model_type='t5'"),
        ({"skip_instruction": True}, "instruction_end_id"),
        ({"first_stage": "tied", "first_stage_backbone": BERT}, "first_stage='tied'"),
        ({"first_stage_backbone": {**BERT, "hidden_size": 64}, "first_stage_head": "none"}, "width"),
        ({"first_stage_backbone": {**BERT, "vocab_size": 99}, "tie_token_embeddings": True}, "one vocabulary"),
        ({"attention": "cached"}, "context_positions='separate'"),
        ({**CACHED, "text_embedding": "twice"}, "text_embedding='once'"),
        ({**CACHED, "pool_over": "all"}, "pool_over='text'"),
    ],
)
def test_a_contradiction_is_refused_by_name(change, named):
    with pytest.raises(ConfigError) as caught:
        ContextualConfig(**{"backbone": BERT, **change})
    assert named in str(caught.value)


def test_settings_survive_json():
    config = tiny_model("modernbert").config
    assert ContextualConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="shape_of_things"):
        ContextualConfig.from_dict({**config.to_dict(), "shape_of_things": 1})
    with pytest.raises(ConfigError, match="context_size=0"):
        config.replace(context_size=0)
