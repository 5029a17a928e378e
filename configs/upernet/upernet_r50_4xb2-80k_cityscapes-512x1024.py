# mmseg's recipe for studies: every resize open to a policy (EncoderDecoder until one is set), labels that stay on their
# images when both are resized, and test images padded to the form n * 32.
_base_ = [
    '../_base_/mmseg_resample.py',
    'mmseg::upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py'
]
model = dict(
    type='ResampledSegmentor',
    resize_policy=dict(exact=False, rules=[]),
    data_preprocessor=dict(test_cfg=dict(size_divisor=32)),
    # of windows, if the mode is 'slide'
    test_cfg=dict(crop_size=_base_.crop_size, stride=(341, 683)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        resize_type='AlignedResize',
        scale=(2048, 1024),
        ratio_range=(0.5, 2.0),
        keep_ratio=True),
    dict(type='RandomCrop', crop_size=_base_.crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs')
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
