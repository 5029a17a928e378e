# SegFormer with its resizes open to choice; as it stands, the stock model and its checkpoints.
# Learned upsamplers double: give them model.decode_head.stepwise=True too.
# decode_head.resampler is the line to change, here or with --cfg-options model.decode_head.resampler.type=DySample.
_base_ = [
    '../_base_/mmseg_resample.py',
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
]
model = dict(
    decode_head=dict(
        type='ResampleSegformerHead', stepwise=False, resampler=dict(type='Interpolate')))
