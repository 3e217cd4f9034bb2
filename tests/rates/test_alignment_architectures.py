"""Alignments of timm's families equal a per-sample loop of plain autograd."""

import pytest
import timm
import torch
from references import per_sample_loop
from torch.nn.functional import cross_entropy

from homing.rates import Alignment

torch.set_num_threads(1)

# (family, architecture, pixels, arguments that make it small)
ARCHITECTURES = [
    ("resnet", "resnet10t", 32, {}),
    ("resnet", "resnet18", 32, {}),
    ("resnet", "res2net50_14w_8s", 32, {"layers": (1, 1, 1, 1)}),
    ("resnext", "resnext26ts", 32, {}),
    ("seresnet", "seresnet18", 32, {}),
    ("ecaresnet", "ecaresnet26t", 32, {"layers": (1, 1, 1, 1)}),
    ("sknet", "skresnet18", 32, {}),
    ("resnest", "resnest14d", 32, {}),
    ("efficientnet", "tf_efficientnet_lite0", 32, {}),
    ("efficientnet", "tf_efficientnetv2_b0", 32, {}),
    ("mobilenetv2", "mobilenetv2_035", 32, {}),
    ("mobilenetv3", "mobilenetv3_small_050", 32, {}),
    ("mobilenetv4", "mobilenetv4_conv_small_035", 32, {}),
    ("convnext", "convnext_atto", 32, {}),
    ("convnextv2", "convnextv2_atto", 32, {}),
    ("regnet", "regnetx_002", 32, {}),
    ("regnet", "regnety_002", 32, {}),
    ("densenet", "densenet121", 32, {"block_config": (2, 2, 2, 2)}),
    ("vit", "vit_tiny_patch16_224", 32, {"img_size": 32, "depth": 2}),
    ("vit", "vit_wee_patch16_reg1_gap_256", 32, {"img_size": 32, "depth": 2}),
    ("vit", "vit_base_patch16_siglip_224", 32, {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 4}),
    ("deit", "deit_tiny_distilled_patch16_224", 32, {"img_size": 32, "depth": 2}),
    ("deit", "deit3_small_patch16_224", 32, {"img_size": 32, "depth": 2}),
    ("samvit", "samvit_base_patch16_224", 32, {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 4}),
    (
        "swin",
        "swin_tiny_patch4_window7_224",
        56,
        {"img_size": 56, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)},
    ),
    ("swinv2", "swinv2_tiny_window8_256", 64, {"img_size": 64, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}),
    ("beit", "beit_base_patch16_224", 32, {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 4}),
    ("eva", "eva02_tiny_patch14_224", 28, {"img_size": 28, "depth": 2}),
    ("cait", "cait_xxs24_224", 32, {"img_size": 32, "depth": 2}),
    ("xcit", "xcit_nano_12_p16_224", 32, {"img_size": 32, "depth": 2}),
    ("convit", "convit_tiny", 32, {"img_size": 32, "depth": 3}),
    ("tnt", "tnt_s_patch16_224", 32, {"img_size": 32, "depth": 2}),
    ("mlp-mixer", "gmlp_ti16_224", 32, {"img_size": 32}),
    ("mlp-mixer", "resmlp_12_224", 32, {"img_size": 32}),
    ("levit", "levit_128s", 224, {}),
    ("efficientformer", "efficientformerv2_s0", 224, {}),
    ("nfnet", "nf_regnet_b0", 32, {}),
    ("resnetv2", "resnetv2_50", 32, {"layers": (1, 1, 1, 1)}),
    ("resnetv2", "nf_resnet26", 32, {}),
    ("coatnet", "coatnet_pico_rw_224", 64, {"img_size": 64}),
    ("maxvit", "maxvit_pico_rw_256", 64, {"img_size": 64}),
    ("mobilevit", "mobilevit_xxs", 64, {}),
    ("mobilevit", "mobilevitv2_050", 64, {}),
    ("ghostnet", "ghostnet_050", 32, {"drop_rate": 0.0}),
    ("edgenext", "edgenext_xx_small", 64, {}),
    ("metaformer", "poolformer_s12", 32, {}),
    ("pvt", "pvt_v2_b0", 32, {}),
    ("inception-next", "inception_next_atto", 32, {}),
    ("hgnet", "lcnet_035", 32, {}),
    ("efficientvit", "efficientvit_m0", 224, {}),
    ("repvgg", "repvgg_a0", 32, {}),
    ("halo-bot", "botnet26t_256", 64, {"img_size": 64}),
    ("sequencer", "sequencer2d_s", 32, {"img_size": 32, "layers": (1, 1, 1, 1)}),
]


def build(name: str, arguments: dict, dtype: torch.dtype) -> torch.nn.Module:
    """A model in training mode but for its batch norms and its chance, with no parameter at a symmetric start."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4, **arguments).to(dtype).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d | torch.nn.Dropout):
            module.eval()
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def test_enough_architectures_and_families():
    assert len(ARCHITECTURES) >= 30
    assert len({family for family, *_ in ARCHITECTURES}) >= 15


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.meshgrid.*:UserWarning")
@pytest.mark.parametrize(
    ("name", "size", "arguments"), [a[1:] for a in ARCHITECTURES], ids=[a[1] for a in ARCHITECTURES]
)
def test_equal_to_per_sample_autograd_in_fp64(name, size, arguments):
    model = build(name, arguments, torch.float64)
    images, labels = torch.randn(2, 3, size, size, dtype=torch.float64), torch.tensor([0, 2])
    direction = {name: torch.randn_like(parameter) for name, parameter in model.named_parameters()}
    alignment = Alignment(model)

    with alignment.observe(direction):
        losses = cross_entropy(model(images), labels, reduction="none")
        (torch.tensor([0.0, 0.7]) * losses).mean().backward()

    expected = per_sample_loop(model, lambda z, y: cross_entropy(z, y, reduction="none"), images, labels, direction)
    error = (alignment.values() - expected).norm() / expected.norm()
    assert error <= 1e-8
    coverage = alignment.coverage()
    assert coverage.parameters >= 0.99
    assert coverage.direction >= 0.99
