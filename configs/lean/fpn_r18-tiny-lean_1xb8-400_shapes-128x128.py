# Runs anywhere, without a download. A pyramid with exact resizes and two losses, lean under the policy.
_base_ = '../shapes/fpn_r18-tiny_1xb8-400_shapes-128x128.py'
model = dict(
    type='LeanSegmentor',
    segmentor='ResampledSegmentor',
    resize_policy=dict(exact=True),
    decode_head=dict(
        sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=10000)))
