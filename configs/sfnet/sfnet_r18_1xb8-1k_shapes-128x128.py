_base_ = [
    '../_base_/mmseg_resample.py', '../_base_/models/sfnet_r18.py',
    '../_base_/datasets/shapes.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/schedule_1k.py'
]
crop_size = (128, 128)
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=crop_size), decode_head=dict(num_classes=6))
