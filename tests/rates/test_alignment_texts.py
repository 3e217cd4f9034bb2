"""Models of texts out of `transformers`, with and without low-rank adapters, against a loop over samples."""

import pytest
import torch
import transformers
from torch import nn
from torch.nn.functional import cross_entropy

from homing.rates import Alignment, Direction, RateTable

torch.set_num_threads(1)

TINY = {"vocab_size": 50, "num_labels": 3, "pad_token_id": 0}
DEEP = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
CHANCELESS = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
KINDS = {
    "bert": lambda **how: transformers.BertForSequenceClassification(
        transformers.BertConfig(**TINY, **DEEP, **CHANCELESS, max_position_embeddings=16, **how)
    ),
    "gpt2": lambda **how: transformers.GPT2ForSequenceClassification(
        transformers.GPT2Config(
            **TINY,
            **{"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "bos_token_id": 1, "eos_token_id": 2},
            **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
            **how,
        )
    ),
    "llama": lambda **how: transformers.LlamaForSequenceClassification(
        transformers.LlamaConfig(**TINY, **DEEP, num_key_value_heads=1, **how)
    ),
}


def texts():
    """Token ids and masks of six texts of unlike lengths, padded; labels."""
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(9) < torch.tensor([9, 5, 7, 9, 4, 6])[:, None]).long()
    return {"input_ids": torch.randint(3, 50, mask.shape, generator=generator) * mask, "attention_mask": mask}


LABELS = torch.arange(6) % 3


def model_of(kind, **how):
    torch.manual_seed(0)
    return KINDS[kind](**how).double().train()


def direction_of(model):
    direction = Direction(model)
    direction.update(cross_entropy(model(**texts()).logits, LABELS.flip(0)))
    return direction


def loop(model, direction):
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    values = []
    for row in range(len(LABELS)):
        one = {name: tensor[row : row + 1] for name, tensor in texts().items()}
        loss = cross_entropy(model(**one).logits, LABELS[row : row + 1])
        gradients = torch.autograd.grad(loss, list(named.values()))
        values.append(sum(float((direction[n] * g).sum()) for n, g in zip(named, gradients, strict=True)))
    return torch.tensor(values, dtype=torch.float64)


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_classifier_of_two_layers(kind, attention):
    model = model_of(kind, attn_implementation=attention)
    direction, alignment = direction_of(model), Alignment(model)
    rates, rows = RateTable(num_rows=10), torch.tensor([2, 9, 4, 5, 0, 7])
    with alignment.observe(direction):
        losses = cross_entropy(model(**texts()).logits, LABELS, reduction="none")
        (rates[rows] * losses).mean().backward()
    rates.update(rows, alignment.values())
    # Llama's norms compute in fp32, whatever the model's precision
    assert relative(alignment.values(), loop(model, direction)) < (1e-6 if kind == "llama" else 1e-11)
    assert alignment.coverage().parameters == 1
    assert int(rates.visits.sum()) == 6


def test_the_loss_of_the_model_itself():
    model = model_of("bert")
    direction, alignment = direction_of(model), Alignment(model)
    with alignment.observe(direction):
        model(**texts(), labels=LABELS).loss.backward()
    assert relative(alignment.values(), loop(model, direction)) < 1e-11


class LowRank(nn.Module):
    """A linear layer that stands still, and two thin ones beside it that train."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + 2.0 * self.up(self.down(x))


def test_low_rank_adapters():
    model = model_of("bert").requires_grad_(False)
    for layer in model.bert.encoder.layer:
        layer.attention.self.query = LowRank(layer.attention.self.query)
        layer.attention.self.value = LowRank(layer.attention.self.value)
    model.double()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in ("down", "up", "classifier")))
    direction, alignment = direction_of(model), Alignment(model)
    with alignment.observe(direction):
        cross_entropy(model(**texts()).logits, LABELS, reduction="none").mean().backward()
    assert len(alignment.covered) == len(direction) == 10
    assert relative(alignment.values(), loop(model, direction)) < 1e-11
