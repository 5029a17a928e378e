# SFNet-Lite (Li et al., IJCV 2023): one gated alignment of the coarsest level with the finest.
_base_ = './sfnet_r18.py'
model = dict(
    decode_head=dict(
        type='SFNetLiteHead',
        in_channels=[64, 256, 512],
        in_index=[0, 2, 3],
        channels=128,
        resampler=dict(type='GatedFlowAlign')))
