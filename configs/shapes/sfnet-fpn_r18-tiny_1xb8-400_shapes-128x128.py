# A pyramid down to stride 32: a thin ResNet-18, pyramid pooling and SFNet's top-down pathway with interpolation. Its
# levels meet 2, 4, 8 and 14 pixels apart under align_corners=False.
_base_ = './fcn_r18-d8-tiny_1xb8-400_shapes-128x128.py'
model = dict(
    backbone=dict(
        num_stages=4,
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        out_indices=(0, 1, 2, 3)),
    decode_head=dict(
        _delete_=True,
        type='SFNetHead',
        in_channels=[16, 32, 64, 128],
        in_index=[0, 1, 2, 3],
        channels=32,
        pool_scales=(1, 2),
        resampler=dict(type='Interpolate', mode='bilinear'),
        dropout_ratio=0.0,
        num_classes=6,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
