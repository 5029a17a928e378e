# No recipe was released for CamVid.
_base_ = [
    '../_base_/mmseg_resample.py', '../_base_/models/sfnet-lite_r18.py',
    '../_base_/datasets/camvid.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/schedule_10k.py'
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=11))
