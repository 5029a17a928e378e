# The paper's FPN baseline: the same decoder, interpolation in place of flow.
_base_ = './sfnet_r18_1xb8-1k_shapes-128x128.py'
model = dict(
    decode_head=dict(
        resampler=dict(_delete_=True, type='Interpolate', mode='bilinear')))
