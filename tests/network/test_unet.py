import math

import pytest
import torch
from torch import nn

import rwtool
from rwtool.network.unet import MOST_FEATURES, UNet2d, stages_for

torch.set_num_threads(1)


def tiny(**options):
    torch.manual_seed(0)
    return UNet2d(1, 2, **{"features": 2, "stages": 3, **options})


def of_type(module, *kinds):
    return [part for part in module.modules() if isinstance(part, kinds)]


def shapes(outputs):
    return [tuple(output.shape) for output in outputs]


def test_logits_halve_from_level_to_level_one_per_stage_of_the_decoder():
    torch.manual_seed(0)
    net = UNet2d(3, 5, features=2, stages=4)
    assert shapes(net(torch.randn(2, 3, 24, 40))) == [(2, 5, 24, 40), (2, 5, 12, 20), (2, 5, 6, 10)]


def test_without_deep_supervision_there_is_one_head_and_one_output():
    net = tiny(deep_supervision=False)
    assert shapes(net(torch.randn(1, 1, 8, 12))) == [(1, 2, 8, 12)]
    assert shapes(net.eval()(torch.randn(1, 1, 8, 12))) == [(1, 2, 8, 12)]
    assert [head.in_channels for head in net.heads] == [2]


def test_in_evaluation_only_the_finest_logits_are_given_those_of_training():
    net, x = tiny(), torch.randn(2, 1, 16, 8)
    finest = net(x)[0]
    found = net.eval()(x)
    assert len(found) == 1
    torch.testing.assert_close(found[0], finest, rtol=0, atol=0)


@pytest.mark.parametrize("stages", [2, 5])
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_every_parameter_takes_part_in_training(stages, deep_supervision):
    net = tiny(stages=stages, deep_supervision=deep_supervision)
    outputs = net(torch.randn(2, 1, 32, 32))
    assert len(outputs) == (stages - 1 if deep_supervision else 1)
    sum(output.square().sum() for output in outputs).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_a_net_of_2_features_and_2_stages_has_450_parameters():
    first = 1 * 2 * 9 + 2 * 2 + 2 * 2 * 9 + 2 * 2  # convolution without bias, scale and shift of its norm, twice
    second = 2 * 4 * 9 + 2 * 4 + 4 * 4 * 9 + 2 * 4
    up = 4 * 2 * 4 + 2
    decoder = 4 * 2 * 9 + 2 * 2 + 2 * 2 * 9 + 2 * 2
    head = 2 * 2 + 2
    assert first + second + up + decoder + head == 450
    for norm in ("instance", "batch"):
        assert sum(p.numel() for p in tiny(stages=2, norm=norm).parameters()) == 450


@pytest.mark.parametrize(
    ("features", "widths"),
    [(32, [32, 64, 128, 256, 512, 512, 512]), (48, [48, 96, 192, 384, 512, 512, 512]), (600, [512] * 7)],
)
def test_features_double_up_to_512(features, widths):
    with torch.device("meta"):
        net = UNet2d(1, 2, features=features, stages=7)
    assert max(widths) == MOST_FEATURES
    assert [[c.out_channels for c in of_type(stage, nn.Conv2d)] for stage in net.encoder] == [[w, w] for w in widths]
    assert [[c.out_channels for c in of_type(stage, nn.Conv2d)] for stage in net.decoder] == [
        [w, w] for w in widths[-2::-1]
    ]
    assert [(up.in_channels, up.out_channels) for up in net.up] == list(zip(widths[:0:-1], widths[-2::-1], strict=True))
    assert [head.in_channels for head in net.heads] == widths[-2::-1]


def test_two_blocks_a_stage_strided_down_transposed_up():
    net = tiny(stages=4)
    block = [nn.Conv2d, nn.InstanceNorm2d, nn.LeakyReLU]
    for stage in (*net.encoder, *net.decoder):
        assert [type(part) for part in stage] == 2 * block
    assert [[c.stride[0] for c in of_type(stage, nn.Conv2d)] for stage in net.encoder] == [[1, 1], *[[2, 1]] * 3]
    assert [[c.stride[0] for c in of_type(stage, nn.Conv2d)] for stage in net.decoder] == 3 * [[1, 1]]
    assert [(up.kernel_size, up.stride) for up in net.up] == 3 * [((2, 2), (2, 2))]
    assert not of_type(net, nn.MaxPool2d, nn.AvgPool2d, nn.Upsample)


@pytest.mark.parametrize("silent", ["skip", "below"])
def test_the_decoder_sees_both_the_skip_and_what_is_below(silent):
    net, x = tiny(stages=2).eval(), torch.randn(2, 1, 8, 8)
    channels = {"below": slice(2), "skip": slice(2, 4)}[silent]
    with torch.no_grad():
        before = net(x)[0]
        net.decoder[0][0].weight[:, channels] = 0
        after = net(x)[0]
    assert (after - before).abs().max() > 1e-3
    assert (after[0] - after[1]).abs().max() > 1e-3


def test_weights_are_drawn_as_he_et_al_do_and_biases_are_0():
    torch.manual_seed(0)
    net = UNet2d(8, 64, features=64, stages=3)
    checked = 0
    for part in of_type(net, nn.Conv2d, nn.ConvTranspose2d):
        fan = part.weight[0].numel()  # as PyTorch and nnU-Net count it, for transposed convolutions too
        sd = math.sqrt(2 / ((1 + 0.01**2) * fan))
        assert part.weight.std().item() == pytest.approx(sd, rel=0.05), part
        assert abs(part.weight.mean().item()) < 0.05 * sd
        assert part.bias is None or part.bias.abs().max() == 0
        checked += 1
    assert checked == 6 + 4 + 2 + 2
    assert {part.negative_slope for part in of_type(net, nn.LeakyReLU)} == {0.01}


def test_the_seed_alone_decides_the_weights():
    one, two = tiny().state_dict(), tiny().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    torch.manual_seed(1)
    other = UNet2d(1, 2, features=2, stages=3).state_dict()
    assert not torch.equal(one["encoder.0.0.weight"], other["encoder.0.0.weight"])


def test_instance_norm_sees_each_image_alone_and_batch_norm_the_batch():
    net = tiny()
    x = torch.randn(2, 1, 8, 8) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1) + 1
    torch.testing.assert_close(net(x)[0][:1], net(x[:1])[0], rtol=0, atol=1e-4)
    net = tiny(norm="batch")
    assert len(of_type(net, nn.BatchNorm2d)) == 10
    assert not of_type(net, nn.InstanceNorm2d)
    assert (net(x)[0][:1] - net(x[:1])[0]).abs().max() > 1e-2


def test_batch_norm_evaluates_with_what_it_has_seen_in_training():
    net, x = tiny(norm="batch"), 3 + 2 * torch.randn(4, 1, 8, 8)
    before = net.eval()(x)[0]
    assert net.encoder[0][1].running_mean.abs().max() == 0
    net.train()(x)
    assert net.encoder[0][1].running_mean.abs().max() > 0
    assert (net.eval()(x)[0] - before).abs().max() > 1e-3
    torch.testing.assert_close(net(x)[0][:1], net(x[:1])[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(12, 16), (16, 20), (4, 8)])
def test_sides_that_are_no_multiple_of_the_stride_are_refused(size):
    net = tiny(stages=4)
    assert net.stride == 8
    with pytest.raises(rwtool.UsageError, match=rf"multiples of 8; found \({size[0]}, {size[1]}\)"):
        net(torch.zeros(1, 1, *size))


@pytest.mark.parametrize(("features", "stages"), [(2, 1), (0, 3)])
def test_a_net_of_1_stage_or_no_feature_is_refused(features, stages):
    with pytest.raises(rwtool.UsageError, match=f"at least 2 stages .* found depth {stages}, features {features}"):
        UNet2d(1, 2, features=features, stages=stages)


@pytest.mark.parametrize(
    ("patch", "stages"),
    [
        ((56, 40), 4),  # 40, 20, 10, 5
        ((256, 224), 6),  # 224, 112, 56, 28, 14, 7
        ((512, 512), 8),  # 512 to 4
        ((4096, 4096), 8),
        ((8, 100), 2),
        ((100, 7), 1),
        ((1, 1), 1),
    ],
)
def test_stages_halve_the_shorter_side_down_to_at_least_4_pixels(patch, stages):
    assert stages_for(patch) == stages
