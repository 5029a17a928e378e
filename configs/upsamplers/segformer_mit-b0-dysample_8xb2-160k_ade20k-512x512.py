_base_ = './segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
model = dict(
    decode_head=dict(
        stepwise=True, resampler=dict(type='DySample')))
