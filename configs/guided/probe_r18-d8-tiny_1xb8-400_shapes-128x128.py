# A linear probe on a thin ResNet-18 that is trained with it: features of stride 8 brought to stride 2 by the image.
_base_ = '../shapes/fcn_r18-d8-tiny_1xb8-400_shapes-128x128.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='WithImage',
        backbone=dict(
            type='ResNetV1c',
            depth=18,
            num_stages=2,
            strides=(1, 2),
            dilations=(1, 1),
            out_indices=(1, ),
            stem_channels=16,
            base_channels=16,
            norm_cfg=dict(type='BN', requires_grad=True),
            style='pytorch')),
    decode_head=dict(
        _delete_=True,
        type='LinearProbeHead',
        in_channels=[3, 32],
        in_index=[0, 1],
        guide_stride=2,
        resampler=dict(type='Interpolate', mode='bilinear'),
        num_classes=6,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
