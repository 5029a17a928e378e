# 1000 epochs of Cityscapes at batch 16, as SFNet-Lite was trained.
_base_ = './schedule_56k.py'
param_scheduler = [
    dict(
        type='PolyLR',
        eta_min=0,
        power=1.0,
        begin=0,
        end=186000,
        by_epoch=False)
]
train_cfg = dict(max_iters=186000, val_interval=6000)
default_hooks = dict(checkpoint=dict(interval=6000))
