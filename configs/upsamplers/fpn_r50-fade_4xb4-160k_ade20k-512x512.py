_base_ = './fpn_r50_4xb4-160k_ade20k-512x512.py'
model = dict(neck=dict(resampler=dict(_delete_=True, type='FADE')))
