"""Small models and losses that the alignment tests share."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy


def losses_of(outputs, labels):
    return cross_entropy(outputs, labels, reduction="none")


class Patches(nn.Module):
    """A convolution, a class token and positions, attention, one block that is called twice."""

    def __init__(self, width=8, num_classes=3):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.norm = nn.BatchNorm2d(width)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 5, width))
        self.block = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.bias = nn.Parameter(torch.randn(1, 5, 5))
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        x = self.norm(self.stem(images)).relu_().flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        x = x + self.block(x)
        x = x + self.block(x)
        x = x + nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=self.bias)
        return self.head(x[:, 0])


def patches(dtype=torch.float64):
    torch.manual_seed(0)
    model = Patches().to(dtype)
    model.norm.eval()
    return model


def batch(size=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, 8, 8, dtype=dtype, generator=generator)
    return images, torch.arange(size) % 3


def direction_of(model):
    generator = torch.Generator().manual_seed(2)
    return {n: torch.randn(p.shape, dtype=p.dtype, generator=generator) for n, p in model.named_parameters()}
