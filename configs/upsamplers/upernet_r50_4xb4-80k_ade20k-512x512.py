# UPerNet with its top-down steps open to choice; as it stands, the stock model and its checkpoints. The fusion of the
# levels and the pooled bins have their own: fusion_resampler and pool_resampler.
# decode_head.resampler is the line to change, here or with --cfg-options model.decode_head.resampler.type=DySample.
_base_ = [
    '../_base_/mmseg_resample.py',
    'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py'
]
model = dict(
    decode_head=dict(
        type='ResampleUPerHead', resampler=dict(type='Interpolate')))
