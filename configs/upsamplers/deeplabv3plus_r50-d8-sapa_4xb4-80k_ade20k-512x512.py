# SAPA-B.
_base_ = './deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py'
model = dict(decode_head=dict(resampler=dict(type='SAPA')))
