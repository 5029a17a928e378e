"""Random networks for the oracle: a seed is a network, every idiom that folds, moves, resizes or mixes positions."""

import random

import torch
import torch.nn.functional as F
from torch import nn


class Skip(Exception):
    """An idiom that the shape at hand does not allow."""


def conv(r, x, out=None, kernel=3, stride=1, padding=None, dilation=1, groups=1):
    out = out or x.shape[1]
    weight = torch.rand(
        out, x.shape[1] // groups, *(kernel if isinstance(kernel, tuple) else (kernel, kernel)), dtype=x.dtype
    )
    if padding is None:
        padding = dilation * (kernel - 1) // 2
    need(x, (max(weight.shape[2:]) - 1) * dilation + 1 - 2 * (min(padding) if isinstance(padding, tuple) else padding))
    return F.conv2d(x, weight, None, stride, padding, dilation, groups)


def linear(x, out):
    return F.linear(x, torch.rand(out, x.shape[-1], dtype=x.dtype))


def need(x, least=4, multiple=1, most=10**6):
    if min(x.shape[2:]) < max(least, 2) or any(n % multiple for n in x.shape[2:]) or max(x.shape[2:]) > most:
        raise Skip


# --- layers -----------------------------------------------------------------------------------------------------------


def plain_conv(r, x):
    return F.relu(conv(r, x, r.choice([2, 4])))


def strided_conv(r, x):
    need(x, 16)
    kernel = r.choice([1, 2, 3, 4, 5, 7])
    return conv(r, x, 4, kernel, 2, r.choice([(kernel - 1) // 2, kernel // 2]))


def patches(r, x):
    need(x, 16)
    return conv(r, x, 4, r.choice([2, 4]), r.choice([2, 4]), 0)


def dilated(r, x):
    need(x, 12)
    kernel, dilation = r.choice([2, 3, 4]), r.choice([2, 3])
    return conv(r, x, 4, kernel, r.choice([1, 1, 2]), r.choice([0, dilation]), dilation)


def even(r, x):
    need(x, 12)
    return conv(r, x, 4, r.choice([2, 4]), 1, r.choice([0, 1, 2]))


def depthwise(r, x):
    return conv(r, x, x.shape[1], 3, r.choice([1, 2]) if min(x.shape[2:]) > 15 else 1, 1, 1, x.shape[1])


def grouped(r, x):
    if x.shape[1] % 2:
        raise Skip
    return conv(r, x, x.shape[1] * 2, 3, 1, 1, 1, 2)


def asymmetric(r, x):
    need(x, 12)
    return conv(r, x, 4, (1, 5), r.choice([(1, 1), (1, 2)]), (0, 2))


def tf_same(r, x):
    need(x, 12)
    kernel, stride = r.choice([3, 5]), 2
    pads = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:]]
    (top, left) = (p // 2 for p in pads)
    return conv(r, F.pad(x, (left, pads[1] - left, top, pads[0] - top)), 4, kernel, stride, 0)


def padded(r, x):
    need(x, 12)
    amounts = [r.randrange(4) for _ in range(4)]
    mode = r.choice(["constant", "reflect", "replicate", "circular"])
    return conv(r, F.pad(x, amounts, mode=mode), None, 3, 1, r.choice([0, 1]))


def cropped(r, x):
    need(x, 16)
    return x[..., r.randrange(4) : x.shape[2] - r.randrange(4), r.randrange(4) : x.shape[3] - r.randrange(4)]


def negative_pad(r, x):
    need(x, 16)
    return F.pad(x, (-r.randrange(3), r.randrange(3), r.randrange(3), -r.randrange(3)))


def pooled(r, x):
    need(x, 16)
    kernel = r.choice([2, 3, 4])
    pool = r.choice([F.max_pool2d, F.avg_pool2d])
    return pool(x, kernel, r.choice([1, 2, kernel]), r.choice([0, kernel // 2]))


def overhanging(r, x):
    need(x, 16)
    kernel = r.choice([2, 3, 5])
    if r.random() < 0.5:
        return F.max_pool2d(x, kernel, 2, kernel // 2, ceil_mode=True)
    return F.avg_pool2d(x, kernel, r.choice([2, 3]), kernel // 2, True, r.choice([True, False]))


def dappm(r, x):
    need(x, 8)
    kernel, stride = r.choice([(5, 2), (9, 4)])
    low = F.avg_pool2d(x, kernel, stride, stride)
    return F.interpolate(conv(r, low, kernel=1), x.shape[2:], mode="bilinear") + x


def adaptive(r, x):
    need(x, 12)
    size = [r.choice([n // 2, n // 3, n // 2 + 1]) for n in x.shape[2:]]
    return r.choice([F.adaptive_avg_pool2d, F.adaptive_max_pool2d])(x, size)


def norms(r, x):
    y = F.group_norm(x, 1)
    y = F.layer_norm(y.permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2)
    y = F.batch_norm(y, torch.zeros(x.shape[1], dtype=x.dtype), torch.ones(x.shape[1], dtype=x.dtype))
    return r.choice([F.gelu, F.silu, F.hardswish, torch.sigmoid, F.softplus, torch.tanh])(y)


def gate(r, x):
    return x * torch.sigmoid(conv(r, F.adaptive_avg_pool2d(x, 1), kernel=1)) + r.choice([0, 1]) * x


def attention_over_positions(r, x):
    return x * torch.sigmoid(conv(r, torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1), 1))


def residual(r, x):
    return x + conv(r, F.relu(conv(r, x)))


def residual_strided(r, x):
    need(x, 12)
    return conv(r, x, 4, 3, 2, 1) + conv(r, x, 4, 1, 2, 0)


def average_shortcut(r, x):
    need(x, 12, 2)
    return conv(r, x, 4, 3, 2, 1) + conv(r, F.avg_pool2d(x, 2, 2), 4, 1)


# --- folding ----------------------------------------------------------------------------------------------------------


def space_to_depth(r, x):
    p = r.choice([2, 2, 4, 8])
    need(x, 2 * p, p)
    n, c, h, w = x.shape
    y = x.view(n, c, h // p, p, w // p, p)
    if r.random() < 0.5:
        return conv(r, y.permute(0, 1, 3, 5, 2, 4).reshape(n, c * p * p, h // p, w // p), 4, r.choice([1, 3]))
    y = y.permute(0, 2, 4, 3, 5, 1).reshape(n, h // p, w // p, -1)
    return linear(y, 4).permute(0, 3, 1, 2)


def patches_to_tokens(r, x):
    p = r.choice([2, 4])
    need(x, 2 * p, p)
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1).reshape(n, (h // p) * (w // p), p * p * c)
    y = F.layer_norm(linear(y, 4), (4,))
    return y.transpose(1, 2).reshape(n, 4, h // p, w // p)


def focus(r, x):
    need(x, 12, 2)
    y = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
    return conv(r, y, 4, r.choice([1, 3]))


def unshuffled(r, x):
    p = r.choice([2, 4])
    need(x, 2 * p, p)
    return conv(r, F.pixel_unshuffle(x, p), 4, 1)


def swin_merging(r, x):
    need(x, 12, 2)
    y = x.permute(0, 2, 3, 1)
    y = torch.cat([y[:, 0::2, 0::2], y[:, 1::2, 0::2], y[:, 0::2, 1::2], y[:, 1::2, 1::2]], -1)
    return linear(F.layer_norm(y, (y.shape[-1],)), 4).permute(0, 3, 1, 2)


def timm_merging(r, x):
    need(x, 12, 2)
    n, c, h, w = x.shape
    y = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
    return linear(y, 4).permute(0, 3, 1, 2)


def mmseg_merging(r, x):
    need(x, 12, 2)
    n, _c, h, w = x.shape
    y = F.unfold(x, 2, stride=2).transpose(1, 2)
    return linear(y, 4).transpose(1, 2).reshape(n, 4, h // 2, w // 2)


def unfolded(r, x):
    need(x, 12)
    n, c, h, w = x.shape
    y = F.unfold(x, 3, padding=1, stride=1).view(n, c, 9, h, w)
    if r.random() < 0.5:
        return y.mean(2)
    return (y * torch.softmax(conv(r, x, 9).unsqueeze(1), 2)).sum(2)


def folded(r, x):
    need(x, 12, 4)
    y = F.unfold(x, 4, stride=4)
    return F.fold(y * 2, x.shape[2:], 4, stride=4)


def tokens(r, x):
    n, c, h, w = x.shape
    y = x.flatten(2).transpose(1, 2)
    y = torch.cat([torch.rand(n, 1, c, dtype=x.dtype), y], 1)
    y = y + torch.rand(1, h * w + 1, c, dtype=x.dtype)
    y = y + self_attention(r, y)
    return y[:, 1:].transpose(1, 2).reshape(n, c, h, w)


def self_attention(r, y):
    if y.shape[1] > 1100:
        return linear(y, y.shape[2])
    q, k, v = linear(y, 3 * y.shape[2]).chunk(3, -1)
    kind = r.randrange(3)
    if kind == 0:
        return F.scaled_dot_product_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)).squeeze(1)
    if kind == 1:
        return torch.einsum("nij,njc->nic", torch.einsum("nic,njc->nij", q, k).softmax(-1), v)
    return (q @ k.transpose(1, 2)).softmax(-1) @ v


def non_local(r, x):
    need(x, 4, 1, 32)
    n, c, h, w = x.shape
    q, k, v = (conv(r, x, kernel=1).flatten(2) for _ in range(3))
    weights = torch.bmm(q.transpose(1, 2), k).softmax(-1)
    return torch.bmm(v, weights.transpose(1, 2)).view(n, c, h, w) + x


def channel_attention(r, x):
    n, c, h, w = x.shape
    y = x.flatten(2)
    return (torch.bmm(y, y.transpose(1, 2)).softmax(-1) @ y).view(n, c, h, w) + x


def reduced_attention(r, x):
    need(x, 8, 2, 32)
    n, c, h, w = x.shape
    q = x.flatten(2).transpose(1, 2)
    k = conv(r, x, c, 2, 2, 0).flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, k).transpose(1, 2).reshape(n, c, h, w) + x


def windows(r, x):
    need(x, 8, 4)
    n, c, h, w = x.shape
    shift = r.choice([0, 2])
    y = x.permute(0, 2, 3, 1)
    if shift:
        y = torch.roll(y, (-shift, -shift), (1, 2))
    y = y.reshape(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
    y = y + self_attention(r, y)
    y = y.view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
    if shift:
        y = torch.roll(y, (shift, shift), (1, 2))
    return y.permute(0, 3, 1, 2)


def channels_last(r, x):
    y = x.permute(0, 2, 3, 1)
    y = linear(F.gelu(linear(F.layer_norm(y, (y.shape[-1],)), 8)), x.shape[1]) + y
    return y.permute(0, 3, 1, 2).contiguous()


def memory_channels_last(r, x):
    return conv(r, x.contiguous(memory_format=torch.channels_last), stride=1)


def channels_last_strides(r, x):
    need(x, 12)
    y = x.permute(0, 2, 3, 1)[:, r.randrange(2) :: 2, r.randrange(2) :: 2]
    return linear(y, 4).permute(0, 3, 1, 2)


def flips(r, x):
    axes = r.choice([(2,), (3,), (2, 3)])
    return conv(r, x.flip(axes), kernel=3).flip(axes) + x


def shuffled_channels(r, x):
    n, c, h, w = x.shape
    if c % 2:
        raise Skip
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def rows_and_columns(r, x):
    rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True)
    kind = r.randrange(3)
    if kind == 0:
        return rows + columns
    if kind == 1:
        return x * torch.sigmoid(rows) * torch.sigmoid(columns)
    return x + rows.expand_as(x)


def coordinate_attention(r, x):
    h, w = x.shape[2:]
    y = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], 2)
    y = conv(r, y, kernel=1, padding=0)
    a, b = y.split([h, w], 2)
    return x * a.sigmoid() * b.permute(0, 1, 3, 2).sigmoid()


def position_tables(r, x):
    n, _c, h, w = x.shape
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    grid = torch.stack([ys, xs]).to(x.dtype)[None].expand(n, 2, h, w)
    return conv(r, torch.cat([x, grid], 1), 4)


# --- moving values ----------------------------------------------------------------------------------------------------


def written(r, x):
    top, left = r.randrange(4), r.randrange(4)
    n, c, h, w = x.shape
    y = x.new_zeros(n, c, h + 6, w + 6)
    y[..., top : top + h, left : left + w] = x
    return conv(r, y, kernel=3)


def written_twice(r, x):
    n, c, h, w = x.shape
    y = x.new_zeros(n, 2 * c, h, w)
    y[:, :c] = x
    y[:, c:] = F.relu(x)
    return conv(r, y, 4)


def written_halves(r, x):
    y = torch.empty_like(x)
    half = x.shape[2] // 2
    y[:, :, :half] = x[:, :, :half] * 2
    y[:, :, half:] = x[:, :, half:]
    return y


def written_over(r, x):
    need(x, 16)
    y = x.clone()
    y[..., 2:-2, 2:-2] = r.choice([conv(r, x, kernel=3), F.avg_pool2d(x, 3, 1, 1)])[..., 2:-2, 2:-2]
    return y


def written_shifted(r, x):
    need(x, 16)
    y = x.clone()
    y[..., :-3] = x[..., 3:]
    return y


def chunks_in_place(r, x):
    if x.shape[1] % 2:
        raise Skip
    y = x * 1
    a, b = y.chunk(2, 1)
    a.mul_(2)
    b += a
    return y


def chunks(r, x):
    if x.shape[1] % 2:
        raise Skip
    a, b = x.chunk(2, 1)
    return torch.cat([conv(r, a), b], 1)


def in_batch(r, x):
    y = torch.cat([x, x.flip(1)], 0)
    a, b = conv(r, y, 4).chunk(2, 0)
    return a + b


def in_batch_flipped(r, x):
    y = torch.cat([x, x.flip(3)], 0)
    a, b = conv(r, y, 4).split(x.shape[0], 0)
    return a + b.flip(3)


def scales_in_batch(r, x):
    need(x, 8)
    low = F.interpolate(F.avg_pool2d(x, 3, 2, 1), x.shape[2:], mode="bilinear", align_corners=r.choice([False, True]))
    a, b = F.relu(torch.cat([x, low], 0)).chunk(2, 0)
    return conv(r, a, 4) + conv(r, b, 4)


def stacked(r, x):
    y = torch.stack([conv(r, x), x], 1)
    return (y * torch.softmax(y.mean((3, 4), keepdim=True), 1)).sum(1)


def picked(r, x):
    need(x, 12)
    index = r.choice([
        torch.arange(0, x.shape[3], 2),
        torch.arange(x.shape[3] - 1, -1, -1),
        torch.tensor([0, 1, 3, 7, 8]),
    ])  # fmt: skip
    return x.index_select(3, index) if r.random() < 0.5 else x[..., index]


def gathered(r, x):
    n, c, h, w = x.shape
    y = x.flatten(2)
    order = y.mean(1).argsort(1)
    return conv(r, y.gather(2, order.unsqueeze(1).expand_as(y)).view(n, c, h, w))


def sorted_channels(r, x):
    return x.sort(1)[0] if r.random() < 0.5 else x.topk(1, 1)[0]


def scattered(r, x):
    n, c, h, w = x.shape
    index = torch.randperm(h * w).expand(n, c, h * w)
    return conv(r, torch.zeros_like(x.flatten(2)).scatter(2, index, x.flatten(2)).view(n, c, h, w))


def rolled(r, x):
    return conv(r, x.roll(r.choice([-2, 3]), r.choice([2, 3])), kernel=1)


# --- resizes ----------------------------------------------------------------------------------------------------------


def any_resize(r, x, size):
    mode = r.choice(["bilinear"] * 5 + ["nearest", "nearest-exact", "bicubic", "area"])
    flag = r.choice([False, True]) if mode in ("bilinear", "bicubic") else None
    if mode == "bilinear" and r.random() < 0.15 and flag is False:
        return F.interpolate(x, size, mode=mode, align_corners=False, antialias=True)
    return F.interpolate(x, size, mode=mode, align_corners=flag)


def up(r, x):
    need(x, 4, 1, 64)
    return any_resize(r, x, [2 * n for n in x.shape[2:]])


def up_odd(r, x):
    need(x, 8, 1, 64)
    return any_resize(r, x, [2 * n - 1 for n in x.shape[2:]])


def shrunk(r, x):
    need(x, 16)
    return any_resize(r, x, [n // 2 for n in x.shape[2:]])


def shrunk_odd(r, x):
    need(x, 16)
    return any_resize(r, x, [r.choice([(n + 1) // 2, 2 * n // 3, n // 3]) for n in x.shape[2:]])


def by_factor(r, x):
    need(x, 12, 1, 48)
    mode = r.choice(["nearest", "bilinear", "bicubic", "nearest-exact"])
    return F.interpolate(x, scale_factor=r.choice([0.5, 1.5, 1.7, 2, 0.75, 1.3]), mode=mode)


def deconvolved(r, x):
    need(x, 4, 1, 48)
    kernel, stride, padding = r.choice([(2, 2, 0), (4, 2, 1), (3, 2, 1), (4, 4, 0), (8, 4, 2)])
    weight = torch.rand(x.shape[1], 4, kernel, kernel, dtype=x.dtype)
    return F.conv_transpose2d(x, weight, None, stride, padding, output_padding=int(kernel == 3))


def pixel_shuffled(r, x):
    need(x, 4, 1, 48)
    p = r.choice([2, 2, 4])
    return F.pixel_shuffle(conv(r, x, 2 * p * p, 1), p)


def depth_to_space(r, x):
    need(x, 4, 1, 48)
    n, _c, h, w = x.shape
    y = conv(r, x, 8, 1).view(n, 2, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, 2, 2 * h, 2 * w)
    return conv(r, y, 4) if r.random() < 0.5 else y


def patch_expanding(r, x):
    need(x, 4, 1, 48)
    n, _c, h, w = x.shape
    y = linear(x.permute(0, 2, 3, 1), 16).view(n, h, w, 2, 2, 4).permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, 4)
    return y.permute(0, 3, 1, 2)


def repeated(r, x):
    need(x, 4, 1, 48)
    n, c, h, w = x.shape
    return x[:, :, :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)


def up_then_stride(r, x):
    y = r.choice([deconvolved, pixel_shuffled, depth_to_space, repeated, up])(r, x)
    kind = r.randrange(4)
    if kind == 0:
        return y[..., r.randrange(2) :: 2, r.randrange(2) :: 2]
    if kind == 1:
        return conv(r, y, 4, 1, 2, 0)
    if kind == 2:
        return conv(r, y, 4, 3, 2, 1)
    return F.max_pool2d(y, 2)


def identity_grid(r, x):
    flag = r.choice([False, True])
    size = r.choice([x.shape[2:], [2 * n for n in x.shape[2:]]])
    need(x, 4, 1, 64)
    theta = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]], dtype=x.dtype).expand(x.shape[0], 2, 3)
    grid = F.affine_grid(theta, [x.shape[0], 1, *size], align_corners=flag)
    return F.grid_sample(x, grid, align_corners=r.choice([flag, not flag]), padding_mode=r.choice(["zeros", "border"]))


def linspace_grid(r, x):
    need(x, 6, 1, 64)
    size = [r.choice([n, 2 * n, n // 2]) for n in x.shape[2:]]
    low = r.choice([-1.0, -0.8])
    ys, xs = torch.meshgrid(*(torch.linspace(low, -low, n) for n in size), indexing="ij")
    grid = torch.stack([xs, ys], -1).to(x.dtype).expand(x.shape[0], *size, 2)
    return F.grid_sample(x, grid, align_corners=r.choice([False, True]), padding_mode="border")


def points_of_a_grid(r, x):
    need(x, 6, 1, 48)
    n, c, h, w = x.shape
    ys, xs = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    points = torch.stack([xs / w, ys / h], -1).reshape(1, h * w, 1, 2).to(x.dtype).expand(n, h * w, 1, 2)
    y = F.grid_sample(x, points * 2 - 1, align_corners=r.choice([False, True]), padding_mode="border")
    return y.view(n, c, h, w)


def points_of_data(r, x):
    n, c, h, w = x.shape
    index = x.mean(1).flatten(1).topk(12, 1)[1]
    points = torch.stack([(index % w + 0.5) / w, (index // w + 0.5) / h], -1).unsqueeze(2)
    at = F.grid_sample(x, points.to(x.dtype) * 2 - 1, align_corners=r.choice([False, True]))
    y = linear(at.squeeze(3).transpose(1, 2), c).transpose(1, 2)
    return x.flatten(2).scatter(2, index.unsqueeze(1).expand(n, c, 12), y).view(n, c, h, w)


def warped_by_flow(r, x):
    need(x, 4, 1, 48)
    flag = r.choice([False, True])
    _n, _c, h, w = x.shape
    like = conv(r, x, 2) * 0.0
    ends = [1.0 if flag else 1 - 1 / size for size in (h, w)]
    ys, xs = torch.meshgrid(*(torch.linspace(-e, e, size) for e, size in zip(ends, (h, w), strict=True)), indexing="ij")
    grid = torch.stack([xs, ys], -1).to(x.dtype) + like.permute(0, 2, 3, 1) / w
    return F.grid_sample(x, grid, align_corners=flag, padding_mode="border")


def global_context(r, x):
    n, c, _h, _w = x.shape
    weights = conv(r, x, 1, 1).flatten(2).softmax(-1)
    context = torch.matmul(x.flatten(2), weights.transpose(1, 2)).view(n, c, 1, 1)
    return x + context


def object_context(r, x):
    n, c, h, w = x.shape
    probabilities = conv(r, x, 3, 1).flatten(2).softmax(2)
    context = torch.matmul(probabilities, x.flatten(2).transpose(1, 2))  # (N, 3, C)
    weights = torch.matmul(x.flatten(2).transpose(1, 2), context.transpose(1, 2)).softmax(-1)
    return torch.cat([x, torch.matmul(weights, context).transpose(1, 2).reshape(n, c, h, w)], 1)


def mixed_tokens(r, x):
    n, c, h, w = x.shape
    y = x.flatten(2)
    return (y + linear(y, h * w)).view(n, c, h, w)


def pyramid_pooling(r, x):
    need(x, 8)
    pooled = F.adaptive_avg_pool2d(x, r.choice([1, 2, 3]))
    return torch.cat([x, F.interpolate(conv(r, pooled, kernel=1), x.shape[2:], mode="bilinear")], 1)


IDIOMS = [value for name, value in list(globals().items()) if callable(value) and getattr(value, "__code__", None)
          and value.__code__.co_varnames[:2] == ("r", "x") and value.__code__.co_argcount == 2]  # fmt: skip


class RandomNetwork(nn.Module):
    """A network drawn from a seed: an encoder, idioms on its levels, a decoder whose resizes make them meet.

    Args:
        seed: draws everything; the same at every call.
        idioms: those to draw from.
    """

    def __init__(self, seed, idioms=IDIOMS):
        super().__init__()
        self.seed, self.idioms = seed, idioms
        self.drawn = []

    def forward(self, image):
        r = random.Random(self.seed)
        self.drawn = []
        levels, x = [], image
        for _ in range(r.randint(1, 3)):
            x = self.apply_one(r, x)
            if min(x.shape[2:]) > 11 and r.random() < 0.7:
                x = self.coarser(r, x)
            if len(x.shape) == 4 and min(x.shape[2:]) > 2:
                levels.append(x)
        levels = levels or [image]
        x = levels[-1]
        for level in reversed(levels[:-1]):
            x = self.fuse(r, x, level)
        if r.random() < 0.3:
            x = self.apply_one(r, x)
        out = conv(r, x, 2, 1)
        return any_resize(r, out, image.shape[2:])

    def apply_one(self, r, x):
        for _ in range(20):
            idiom = r.choice(self.idioms)
            state = r.getstate()
            try:
                y = idiom(r, x)
            except Skip:
                r.setstate(state)
                r.random()
                continue
            self.drawn.append(idiom.__name__)
            if min(y.shape[2:]) >= 2 and max(y.shape[2:]) <= 128:
                return y if y.shape[1] <= 12 else conv(r, y, 4, 1)
        return x

    def coarser(self, r, x):
        layer = r.choice([strided_conv, patches, pooled, swin_merging, unshuffled, tf_same, focus])
        try:
            return layer(*_fitting(r, x))
        except Skip:
            return x

    def fuse(self, r, x, level):
        x = any_resize(r, x, level.shape[2:]) if x.shape[2:] != level.shape[2:] else x
        kind = r.randrange(3)
        if kind == 0:
            return conv(r, torch.cat([level, x], 1), 4, 1)
        a, b = conv(r, level, 4, 1), conv(r, x, 4, 1)
        return a + b if kind == 1 else a * b.sigmoid()


def _fitting(r, x):
    """Crop to a multiple of 4, which merging layers ask for."""
    h, w = (n // 4 * 4 for n in x.shape[2:])
    return r, x[..., :h, :w] if (h, w) != tuple(x.shape[2:]) else x
