# Semantic FPN with the top-down steps of its neck (neck.resampler) and the doublings of its head (decode_head.resampler)
# open to choice; as it stands, the stock model and its checkpoints.
_base_ = [
    '../_base_/mmseg_resample.py',
    'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py'
]
model = dict(
    neck=dict(
        type='ResampleFPN', resampler=dict(type='Interpolate', mode='nearest')),
    decode_head=dict(
        type='ResampleFPNHead', resampler=dict(type='Interpolate')))
