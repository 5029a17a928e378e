# The FPN baseline for studies on one GPU: every resize open to a policy (EncoderDecoder until one is set), a crop of the
# form n * 32, test images padded to that form, and labels that stay on their images when both are resized.
_base_ = './sfnet-fpn_r18_1xb8-10k_camvid-360x360.py'
crop_size = (352, 352)
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='ResampledSegmentor',
    resize_policy=dict(exact=False, rules=[]),
    data_preprocessor=dict(
        size=crop_size, test_cfg=dict(size_divisor=32)),
    backbone=dict(norm_cfg=norm_cfg),
    decode_head=dict(norm_cfg=norm_cfg),
    # of windows, if the mode is 'slide'
    test_cfg=dict(crop_size=crop_size, stride=(235, 235)))
train_pipeline = _base_.train_pipeline
next(t for t in train_pipeline if t['type'] == 'RandomResize')['resize_type'] = 'AlignedResize'
next(t for t in train_pipeline if t['type'] == 'RandomCrop')['crop_size'] = crop_size
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
