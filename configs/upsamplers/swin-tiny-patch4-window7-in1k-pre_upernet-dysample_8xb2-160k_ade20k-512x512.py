_base_ = './swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
model = dict(decode_head=dict(resampler=dict(type='DySample')))
