# 300 epochs of Cityscapes at batch 16, with the linear decay that SFNet was published with.
_base_ = './iterations.py'
optimizer = dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001)
optim_wrapper = dict(type='OptimWrapper', optimizer=optimizer)
param_scheduler = [
    dict(
        type='PolyLR',
        eta_min=0,
        power=1.0,
        begin=0,
        end=56000,
        by_epoch=False)
]
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=56000, val_interval=4000)
default_hooks = dict(checkpoint=dict(interval=4000))
