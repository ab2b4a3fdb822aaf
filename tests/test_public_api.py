"""The names that users import. A name that goes breaks their code; a name that comes must be kept."""

import importlib

import pytest

NAMES = {
    "dynops": (
        "BatchNorm Block ChannelStatistics Channels Context Delta Dynamic FilterNorm Gaussian Global GlobalStatistics "
        "Hidden Kernel Layer Linear MeanZero Mixture Offsets OneHot Operator Pair Parallel Patch Permuted Pointwise "
        "PooledTaps Positions Project Query QueryKey QueryPosition Read Relative Series Sigmoid Softmax Static Window "
        "averaged convert_involution filter_norm fold_all load_involution local_sum macs mean_zero one_hot parameters "
        "sigmoid softmax zoo"
    ),
    "dynops.parts.zoo": (
        "FAMILY carafe cbam channel_gate condconv conv2d conv_transpose2d decoupled_dynamic_filter deformable_conv "
        "depthwise drconv dynamic_conv dynamic_conv1d dynamic_depthwise halo_attention involution involution_keras "
        "involution_with_coordinates lambda_layer lightweight_conv local_relation locally_connected "
        "low_rank_locally_connected mlp_mixing modulated_deformable_conv neighbourhood_attention odconv "
        "outlook_attention pairwise_attention patchwise_attention pixel_adaptive_conv pixel_mixture pooling "
        "shared_depthwise shift spatial_gate squeeze_excitation stand_alone_attention static_plus_dynamic "
        "token_mixing weightnet window_attention"
    ),
    "dynops.nets": (
        "Bare KerasCNN KerasINN Matched MetaFormer Network Official ResNet ResidualNetwork Section Slot Timing Widths "
        "features load_official matched metaformer named rednet resnet sections"
    ),
    "dynops.data": (
        "Augmentation Batches Cifar10 Cifar100 Data Dataset Digits Examples FashionMnist ImageData ImageFiles "
        "ImageFolder Mnist ResizedCrop SelectorShift augment"
    ),
    "dynops.training": "Experiment Recipe export recipes restore train train_together",
    "dynops.ablation": (
        "Bounded Difference Effects Exceeds Factor Fraction FullFactorial Hypothesis Interaction Job Objective "
        "OneFactor Plan Range Ray Report Search SearchPlan SearchReport Slope Study Tuning Within effects join "
        "read_search read_study report search_report"
    ),
}


@pytest.mark.parametrize("module", NAMES)
def test_the_public_names_are_those_that_are_promised(module: str) -> None:
    found = importlib.import_module(module)
    promised = set(NAMES[module].split())
    listed = set(getattr(found, "__all__", promised))
    assert listed == promised, (
        f"{module} lists {sorted(listed ^ promised)} otherwise than this test. If that is meant, change NAMES here and "
        "say so in CHANGELOG.md."
    )
    assert all(hasattr(found, name) for name in promised)


@pytest.mark.parametrize("module", NAMES)
def test_every_public_name_says_what_it_is(module: str) -> None:
    found = importlib.import_module(module)
    silent = [name for name in NAMES[module].split() if not (getattr(found, name).__doc__ or "").strip()]
    assert not silent
