# A pyramid whose top-down steps are guided by the image, read at the size of each level.
_base_ = '../shapes/fpn_r18-tiny_1xb8-400_shapes-128x128.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='WithImage',
        backbone=dict(
            type='ResNetV1c',
            depth=18,
            num_stages=4,
            strides=(1, 2, 2, 2),
            dilations=(1, 1, 1, 1),
            out_indices=(0, 1, 2, 3),
            stem_channels=16,
            base_channels=16,
            norm_cfg=dict(type='BN', requires_grad=True),
            style='pytorch')),
    neck=dict(
        resampler=dict(
            _delete_=True, type='JAFAR', qk_channels=32, num_heads=4)))
