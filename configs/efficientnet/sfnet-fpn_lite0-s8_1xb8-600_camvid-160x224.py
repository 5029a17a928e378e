# The same without its finest level: labels are predicted from features of stride 8. Three minutes on one CPU core.
_base_ = './sfnet-fpn_lite0_1xb8-800_camvid-160x224.py'
model = dict(decode_head=dict(in_channels=[40, 112], in_index=[1, 2]))
max_iters = 600
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=15, by_epoch=False),
    dict(
        type='PolyLR',
        eta_min=0,
        power=0.9,
        begin=15,
        end=max_iters,
        by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
