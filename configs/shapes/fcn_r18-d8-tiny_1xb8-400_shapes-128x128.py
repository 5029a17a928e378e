# The network of the default study: two stages of a thin ResNet-18 (3x3 kernels, stride 8) and one resize, from logits to
# labels. Everything that `align_corners` can do to it, that one resize does. About half a minute on one CPU core.
_base_ = [
    '../_base_/mmseg_resample.py', '../_base_/datasets/shapes.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/schedule_400.py'
]
norm_cfg = dict(type='BN', requires_grad=True)
crop_size = (128, 128)
model = dict(
    type='ResampledSegmentor',  # EncoderDecoder, until a study sets a policy
    resize_policy=dict(exact=False, rules=[]),
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=crop_size),
    backbone=dict(
        type='ResNetV1c',
        depth=18,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1, ),
        stem_channels=16,
        base_channels=16,
        norm_cfg=norm_cfg,
        style='pytorch'),
    decode_head=dict(
        type='FCNHead',
        in_channels=32,
        in_index=0,
        channels=32,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=6,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
