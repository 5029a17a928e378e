# A minute or so on one CPU core for a tiny network on Shapes.
_base_ = './iterations.py'
optimizer = dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.0001)
optim_wrapper = dict(type='OptimWrapper', optimizer=optimizer)
param_scheduler = [
    dict(
        type='PolyLR',
        eta_min=0,
        power=0.9,
        begin=0,
        end=1000,
        by_epoch=False)
]
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=1000, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))
