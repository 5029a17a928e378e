# As released: 1000 epochs, OHEM with 100k pixels. Left out, because mmseg has none of it: the class-uniform sampling
# of half of the crops and Gaussian blur; mmseg's photometric distortion stands in for colour jitter of 0.25.
_base_ = [
    '../_base_/mmseg_resample.py', '../_base_/models/sfnet-lite_r18.py',
    'mmseg::_base_/datasets/cityscapes_1024x1024.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/schedule_186k.py'
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(
        sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=100000)))
train_dataloader = dict(batch_size=4, num_workers=4)
