# mmseg's recipe for studies: every resize open to a policy (EncoderDecoder until one is set), and labels that stay on
# their images when both are resized.
_base_ = [
    '../_base_/mmseg_resample.py',
    'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
]
model = dict(
    type='ResampledSegmentor',
    resize_policy=dict(exact=False, rules=[]),
    # of windows, if the mode is 'slide'
    test_cfg=dict(crop_size=_base_.crop_size, stride=(341, 341)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(
        type='RandomResize',
        resize_type='AlignedResize',
        scale=(2048, 512),
        ratio_range=(0.5, 2.0),
        keep_ratio=True),
    dict(type='RandomCrop', crop_size=_base_.crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs')
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
