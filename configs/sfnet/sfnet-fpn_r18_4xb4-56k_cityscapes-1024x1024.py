# The paper's FPN baseline: the same decoder, interpolation in place of flow.
_base_ = './sfnet_r18_4xb4-56k_cityscapes-1024x1024.py'
model = dict(
    decode_head=dict(
        resampler=dict(_delete_=True, type='Interpolate', mode='bilinear')))
