# The published 3.5M additional parameters imply another kernel than this one.
_base_ = './segformer_mit-b1_8xb2-160k_ade20k-512x512.py'
model = dict(
    decode_head=dict(
        stepwise=True, resampler=dict(type='Deconv')))
