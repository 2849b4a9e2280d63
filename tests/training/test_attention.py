"""Packed = padded: outputs and gradients, float32, on the lengths that make trouble."""

import inspect
import itertools
from typing import Any

import pytest
import torch

from infra.errors import WrongInput
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


def test_attention_of_a_kind_that_it_is_not_is_refused() -> None:
    from training.attention import packed_attention

    q = torch.zeros(1, 2, 4, 8)
    with pytest.raises(WrongInput, match="sliding_window"):
        packed_attention(
            torch.nn.Module(), q, q, q, None, boundaries=Boundaries.of(torch.tensor([4])), sliding_window=2
        )


def test_fewer_heads_of_keys_than_of_queries() -> None:
    from training.attention import packed_attention

    q, few = torch.randn(1, 4, 7, 8), torch.randn(1, 2, 7, 8)
    many = few.repeat_interleave(2, dim=1)
    boundaries = Boundaries.of(torch.tensor([3, 4]))
    grouped, whole = (
        packed_attention(torch.nn.Module(), q, kv, kv, None, boundaries=boundaries)[0] for kv in (few, many)
    )
    assert torch.allclose(grouped, whole, atol=1e-6)


def test_the_encoder_sees_samples_sorted_and_the_states_come_back_in_order() -> None:
    from training.text import encode_packed

    lengths = torch.tensor(LENGTHS["mixed"])
    batch: dict[str, Any] = {"input_ids": torch.arange(int(lengths.sum()))[None], "boundaries": Boundaries.of(lengths)}

    class Encoder(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, boundaries: Boundaries) -> Any:
            assert torch.diff(boundaries.ends).tolist() == sorted(lengths.tolist()) and boundaries.sorting is None
            state = torch.stack([input_ids[0], position_ids[0]], dim=1).float()
            return type("Output", (), {"last_hidden_state": state[None]})

    state = encode_packed(Encoder(), batch)
    assert torch.equal(state[:, 0], batch["input_ids"][0].float())
    assert torch.equal(state[:, 1], batch["boundaries"].position_ids[0].float())


@pytest.mark.parametrize("causal", [False, True])
def test_the_cuda_kernel_is_asked_for_what_the_groups_compute(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself needs a GPU: here its documented meaning, computed plainly, is called in its place."""
    from torch.nn import functional
    from torch.nn.attention import varlen

    from training import attention

    signature = inspect.signature(varlen.varlen_attn)

    def plain(*args: Any, **options: Any) -> torch.Tensor:
        given = signature.bind(*args, **options).arguments
        assert given["cu_seq_q"].dtype == torch.int32 and given["max_q"] == given["max_k"] == 5
        parts = [
            functional.scaled_dot_product_attention(
                given["query"][begin:end].transpose(0, 1)[None],
                given["key"][begin:end].transpose(0, 1)[None],
                given["value"][begin:end].transpose(0, 1)[None],
                scale=given["scale"], is_causal=given["window_size"] == (-1, 0), enable_gqa=given["enable_gqa"],
            )[0].transpose(0, 1)
            for begin, end in itertools.pairwise(given["cu_seq_q"].tolist())
        ]  # fmt: skip
        return torch.cat(parts)

    q, k, v = torch.randn(3, 1, 2, 10, 8).unbind()
    boundaries = Boundaries.of(torch.tensor([5, 2, 3]))
    options: Any = {"scaling": 0.3, "is_causal": causal, "boundaries": boundaries}
    expected, _ = attention.packed_attention(torch.nn.Module(), q, k, v, None, **options)
    assert not attention.kernel_fits(q, 0.0), "the kernel is not on the CPU"
    monkeypatch.setattr(attention, "kernel_fits", lambda query, dropout: True)
    monkeypatch.setattr(varlen, "varlen_attn", plain)
    found, _ = attention.packed_attention(torch.nn.Module(), q, k, v, None, **options)
    assert torch.allclose(found, expected, atol=1e-6)
