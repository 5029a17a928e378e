# No recipe was released for ADE20K; this is mmseg's for its ResNets.
_base_ = [
    '../_base_/mmseg_resample.py', '../_base_/models/sfnet_r18.py',
    'mmseg::_base_/datasets/ade20k.py', 'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py'
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=150))
