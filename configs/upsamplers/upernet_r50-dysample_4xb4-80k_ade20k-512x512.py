_base_ = './upernet_r50_4xb4-80k_ade20k-512x512.py'
model = dict(decode_head=dict(resampler=dict(type='DySample')))
