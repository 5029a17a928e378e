# A pyramid of a thin ResNet-18 whose top-down steps are the resamplers under comparison. The head concatenates its levels.
_base_ = './fcn_r18-d8-tiny_1xb8-400_shapes-128x128.py'
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(
        num_stages=4,
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        out_indices=(0, 1, 2, 3)),
    neck=dict(
        type='ResampleFPN',
        in_channels=[16, 32, 64, 128],
        out_channels=32,
        num_outs=4,
        norm_cfg=norm_cfg,
        resampler=dict(type='Interpolate', mode='bilinear')),
    decode_head=dict(
        in_channels=[32, 32, 32, 32],
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat'))
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict()))  # for studies that slow parts down
