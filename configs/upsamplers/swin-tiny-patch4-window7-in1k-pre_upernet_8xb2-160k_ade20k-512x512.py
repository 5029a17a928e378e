# UPerNet on Swin-T with its top-down steps open to choice; as it stands, the stock model and its checkpoints.
# decode_head.resampler is the line to change, here or with --cfg-options model.decode_head.resampler.type=DySample.
_base_ = [
    '../_base_/mmseg_resample.py',
    'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
]
model = dict(
    decode_head=dict(
        type='ResampleUPerHead', resampler=dict(type='Interpolate')))
