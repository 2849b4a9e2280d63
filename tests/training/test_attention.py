"""Packed = padded: outputs and gradients, float32, on the lengths that make trouble."""

from typing import Any

import pytest
import torch

from training.attention import Boundaries, use_packed_attention

LENGTHS = {"mixed": [5, 17, 3, 9, 9, 31], "one": [7], "ones": [1, 1, 1], "equal": [8] * 5, "far apart": [1, 64, 2, 63]}


def _models(config: object, cls: Any, **options: object) -> tuple[Any, Any]:
    import copy

    torch.manual_seed(0)
    packed, padded = (cls(copy.deepcopy(config), **options) for _ in range(2))
    with torch.no_grad():
        for parameter in packed.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    padded.load_state_dict(packed.state_dict())
    use_packed_attention(packed)
    return packed.train(), padded.train()


def _compare(packed: Any, padded: Any, lengths: list[int]) -> None:
    sizes = torch.tensor(lengths)
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(0, 100, (length,), generator=generator) for length in lengths]
    boundaries = Boundaries.of(sizes)
    out = packed(
        input_ids=torch.cat(ids)[None], position_ids=boundaries.position_ids, boundaries=boundaries
    ).last_hidden_state[0]
    mask = torch.arange(max(lengths)) < sizes[:, None]
    rows = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    expected = padded(input_ids=rows, attention_mask=mask.long()).last_hidden_state[mask]
    weight = torch.randn(expected.shape, generator=generator)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()
    for (name, mine), theirs in zip(packed.named_parameters(), padded.parameters(), strict=True):
        # The gradient of a key's bias is 0 in exact arithmetic (softmax ignores a shift): compare to the layer's scale.
        scale = max(float(theirs.grad.abs().max()), 1e-2)
        assert (mine.grad - theirs.grad).abs().max() <= 1e-5 * scale, name


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_packed_bert_equals_padded_bert(lengths: list[int]) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=64,
    )  # fmt: skip
    _compare(*_models(config, BertModel, add_pooling_layer=False), lengths)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_packed_gpt2_equals_padded_gpt2(lengths: list[int]) -> None:
    """Causal attention goes the same way."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(
        vocab_size=100, n_embd=32, n_layer=2, n_head=2, n_positions=64, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    _compare(*_models(config, GPT2Model), lengths)


def test_without_boundaries_it_refuses() -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    model = BertModel(config)
    use_packed_attention(model)
    with pytest.raises(ValueError, match="without boundaries"):
        model(input_ids=torch.zeros(1, 4, dtype=torch.long))
