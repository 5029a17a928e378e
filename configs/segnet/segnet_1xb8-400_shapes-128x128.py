# A small SegNet: three poolings by 2, undone by unpooling to where each maximum was. The only thing that its decoder
# learns of the image beside the coarsest feature is where those maxima were.
_base_ = '../shapes/fcn_r18-d8-tiny_1xb8-400_shapes-128x128.py'
norm_cfg = dict(type='BN', requires_grad=True)
channels = [16, 32, 48]
num_convs = [1, 1, 2]
model = dict(
    backbone=dict(
        _delete_=True,
        type='SegNet',
        channels=channels,
        num_convs=num_convs,
        norm_cfg=norm_cfg),
    decode_head=dict(
        _delete_=True,
        type='SegNetHead',
        in_channels=[16, 32, 48, 48],
        in_index=[0, 1, 2, 3],
        channels=16,
        num_convs=num_convs,
        resampler=dict(type='MaxUnpool'),
        dropout_ratio=0.0,
        num_classes=6,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
