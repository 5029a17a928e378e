_base_ = './sfnet_stdc1.py'
model = dict(
    decode_head=dict(
        type='SFNetLiteHead',
        in_channels=[64, 512, 1024],
        in_index=[0, 2, 3],
        channels=128,
        resampler=dict(type='GatedFlowAlign')))
