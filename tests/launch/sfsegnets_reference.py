"""SFNet and SFNet-Lite with the attribute names of SFSegNets, written from the papers and from what is known of its
state dicts: plain PyTorch, no module of the package. The tests convert its random weights and compare logits."""

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(inputs, outputs, kernel=1, bias=False, relu=True, stride=1, **kwargs):
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias, **kwargs), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *[nn.ReLU()] * relu)


def resized(x, like):
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)


def warped(x, flow, corners):
    """``x`` at the [-1, 1] grid of aligned corners plus the flow over the size; ``corners``: how the grid is read."""
    height, width = flow.shape[2:]
    rows, columns = (torch.linspace(-1, 1, n, dtype=x.dtype) for n in (height, width))
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    step = flow.permute(0, 2, 3, 1) / torch.tensor([width, height], dtype=x.dtype)
    return F.grid_sample(x, grid + step, align_corners=corners)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the second dilated; or a bottleneck, its 3x3 convolution strided and dilated."""

    def __init__(self, inputs, width, stride, dilation, bottleneck):
        super().__init__()
        outputs = 4 * width if bottleneck else width
        dilated = dict(padding=dilation, dilation=dilation, bias=False)
        if bottleneck:
            self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, stride, **dilated)
            self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        else:
            self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, **dilated)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        if stride > 1 or inputs != outputs:
            self.downsample = conv_bn(inputs, outputs, stride=stride, relu=False)

    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if hasattr(self, "conv3"):
            out = self.bn3(self.conv3(out.relu()))
        return (out + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


class StemAndStages(nn.Module):
    """ResNet with the deep stem of 128 channels; the last two stages are strided and dilated."""

    def __init__(self, blocks, bottleneck):
        super().__init__()
        stem = [*conv_bn(3, 64, 3, stride=2), *conv_bn(64, 64, 3), nn.Conv2d(64, 128, 3, padding=1, bias=False)]
        self.layer0 = nn.Sequential(nn.Sequential(*stem), nn.BatchNorm2d(128), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        inputs, self.channels = 128, []
        for i, (count, width, dilation) in enumerate(zip(blocks, (64, 128, 256, 512), (1, 1, 2, 4), strict=True)):
            stage = []
            for j in range(count):
                stage.append(ResidualBlock(inputs, width, 2 if i and not j else 1, dilation, bottleneck))
                inputs = 4 * width if bottleneck else width
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
            self.channels.append(inputs)

    def levels(self, x):
        x = self.layer0(x)
        out = []
        for i in range(4):
            x = getattr(self, f"layer{i + 1}")(x)
            out.append(x)
        return out


class ConvX(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class ShortTermDense(nn.Module):
    """STDC's block: four convolutions of shrinking width, their outputs concatenated."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        widths = [outputs // 2, outputs // 4, outputs // 8, outputs // 8]
        sizes = zip([inputs, *widths], widths, (1, 3, 3, 3), strict=False)
        self.conv_list = nn.ModuleList(ConvX(i, o, k) for i, o, k in sizes)
        if stride == 2:
            self.avd_layer = conv_bn(widths[0], widths[0], 3, stride=2, relu=False, groups=widths[0])

    def forward(self, x):
        first, *others = self.conv_list
        out = [first(x)]
        x = out[0]
        if hasattr(self, "avd_layer"):
            x, out = self.avd_layer(x), [F.avg_pool2d(x, 3, 2, 1)]
        for conv in others:
            x = conv(x)
            out.append(x)
        return torch.cat(out, 1)


class ShortTermDenseNetwork(nn.Module):
    channels = [64, 256, 512, 1024]

    def __init__(self, blocks):
        super().__init__()
        features, inputs, self.ends = [ConvX(3, 32, 3, 2), ConvX(32, 64, 3, 2)], 64, [1]
        for count, outputs in zip(blocks, self.channels[1:], strict=True):
            for j in range(count):
                features.append(ShortTermDense(inputs, outputs, 1 if j else 2))
                inputs = outputs
            self.ends.append(len(features) - 1)
        self.features = nn.Sequential(*features)
        self.x2 = self.features[:1]  # the released class registers its stages twice, and a classifier
        for name, start, end in zip(("x4", "x8", "x16", "x32"), [0, *self.ends], self.ends, strict=False):
            self.add_module(name, self.features[start + 1 : end + 1])
        self.conv_last = ConvX(1024, 1024, 1)
        self.fc, self.bn, self.linear = nn.Linear(1024, 1024, bias=False), nn.BatchNorm1d(1024), nn.Linear(1024, 10)

    def levels(self, x):
        out = []
        for feature in self.features:
            x = feature(x)
            out.append(x)
        return [out[end] for end in self.ends]


class PoolingModule(nn.Module):
    def __init__(self, inputs, channels):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), *conv_bn(inputs, channels, relu=False)) for bins in (1, 2, 3, 6)
        )
        self.bottleneck = nn.Sequential(*conv_bn(inputs + 4 * channels, channels), nn.Dropout2d(0.1))

    def forward(self, x):
        return self.bottleneck(torch.cat([*(resized(stage(x), x) for stage in self.stages), x], 1))


class Alignment(nn.Module):
    """FAM, or with ``gate`` the two flows and the gate of SFNet-Lite."""

    def __init__(self, channels, corners, gate=None):
        super().__init__()
        self.corners, self.atten = corners, gate == "spatial_atten"
        half = channels // 2
        self.down_h, self.down_l = (nn.Conv2d(channels, half, 1, bias=False) for _ in range(2))
        self.flow_make = nn.Conv2d(channels, 4 if gate else 2, 3, padding=1, bias=False)
        if gate:
            inputs = 4 if self.atten else channels
            self.flow_gate = nn.Sequential(nn.Conv2d(inputs, 1, 3, padding=1, bias=False), nn.Sigmoid())

    def forward(self, low, high):
        h = resized(self.down_h(high), low)
        both = torch.cat([h, self.down_l(low)], 1)
        flow = self.flow_make(both)
        out = warped(high, flow[:, :2], self.corners)
        if hasattr(self, "flow_gate"):
            if self.atten:
                both = torch.stack([h.mean(1), low.mean(1), h.amax(1), low.amax(1)], 1)
            gate = self.flow_gate(both)
            out = out * gate + warped(low, flow[:, 2:], self.corners) * (1 - gate)
        return out


class Head(nn.Module):
    """SFNet's decoder, or the FPN baseline's; returns logits and those of the deep supervision, finest first."""

    def __init__(self, channels, width, classes, corners, supervised, aligned):
        super().__init__()
        self.aligned = aligned
        self.ppm = PoolingModule(channels[-1], width)
        self.fpn_in = nn.ModuleList(conv_bn(c, width, bias=True) for c in channels[:3])
        self.fpn_out = nn.ModuleList(nn.Sequential(conv_bn(width, width, 3)) for _ in range(3))
        if aligned:
            self.fpn_out_align = nn.ModuleList(Alignment(width, corners) for _ in range(3))
        if supervised:
            self.dsn = nn.ModuleList(classifier(width, classes) for _ in range(3))
        self.conv_last = nn.Sequential(conv_bn(4 * width, width, 3), nn.Conv2d(width, classes, 1))

    def forward(self, levels):
        f = pooled = self.ppm(levels[3])
        outs, supervision = [pooled], []
        for i in (2, 1, 0):
            lateral = self.fpn_in[i](levels[i])
            f = lateral + (self.fpn_out_align[i](lateral, f) if self.aligned else resized(f, lateral))
            outs.insert(0, self.fpn_out[i](f))
            if hasattr(self, "dsn"):
                supervision.insert(0, self.dsn[i](f))
        return self.conv_last(torch.cat([resized(out, outs[0]) for out in outs], 1)), supervision


class LiteHead(nn.Module):
    def __init__(self, channels, width, classes, corners, gate):
        super().__init__()
        self.ppm = PoolingModule(channels[-1], width)
        self.fpn_in = nn.ModuleList(conv_bn(channels[i], width, bias=True) for i in (0, 2, 3))  # the last is not used
        self.dsn = nn.ModuleList([classifier(width, classes)])  # nor is this one
        self.flow_align_module = Alignment(width, corners, gate)
        self.conv_last = nn.Sequential(conv_bn(2 * width, width, 3), nn.Conv2d(width, classes, 1))

    def forward(self, levels):
        fine, middle = self.fpn_in[0](levels[0]), self.fpn_in[1](levels[2])
        aligned = self.flow_align_module(fine, self.ppm(levels[3]))
        return self.conv_last(torch.cat([aligned, resized(middle, aligned)], 1)), []


def classifier(width, classes):
    return nn.Sequential(*conv_bn(width, width, 3, bias=True), nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1))


class Network(nn.Module):
    """The whole network, weights random and statistics of the normalisation too, in float64 and evaluation mode.

    Args:
        backbone: ``"r18"``, ``"r50"``, ``"stdc1"`` or ``"stdc2"``.
        width: channels of the head.
        gate: of SFNet-Lite, or None for SFNet.
        corners: whether the warp reads its grid as aligned corners.
        aligned: whether the top-down steps are flows; bilinear otherwise.
    """

    def __init__(self, backbone, width, classes=19, *, gate=None, supervised=False, corners=True, aligned=True):
        super().__init__()
        if backbone.startswith("r"):
            trunk = StemAndStages((2, 2, 2, 2) if backbone == "r18" else (3, 4, 6, 3), backbone != "r18")
            for name, module in trunk.named_children():
                self.add_module(name, module)
        else:
            trunk = self.backbone = ShortTermDenseNetwork((2, 2, 2) if backbone == "stdc1" else (4, 5, 3))
        object.__setattr__(self, "trunk", trunk)  # its modules are here already, under their published names
        if gate:
            self.head = LiteHead(trunk.channels, width, classes, corners, gate)
        else:
            self.head = Head(trunk.channels, width, classes, corners, supervised, aligned)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.normal_(module.bias, 0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        self.double().eval()

    def forward(self, x):
        return self.head(self.trunk.levels(x))
