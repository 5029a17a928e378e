# DeepLabV3+ with its doubling to the low-level feature open to choice; as it stands, the stock model and its checkpoints.
# The two features differ in width: FADE needs gate=False here, and FreqFusion, which adds them, does not fit.
# decode_head.resampler is the line to change, here or with --cfg-options model.decode_head.resampler.type=DySample.
_base_ = [
    '../_base_/mmseg_resample.py',
    'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py'
]
model = dict(
    decode_head=dict(
        type='ResampleDeepLabV3PlusHead', resampler=dict(type='Interpolate')))
