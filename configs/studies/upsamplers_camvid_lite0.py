# Which upsampler gets most out of frozen features, on photographs? EfficientNet-Lite0 with ImageNet weights, features of
# stride 16 brought to stride 4, a linear layer: a probe, as papers on upsamplers guided by the image have it, each upsampler
# on the grid that its authors published.
# Declared is JAFAR against bilinear. 66 runs of one to four minutes on a CPU core. What registration does to them is asked by
# registered_upsamplers_camvid_lite0.py.
# It needs `pip install "mmseg_resample[pretrained]"` and `python tools/prepare_camvid.py --half data/camvid`.
base = '../guided/probe_lite0-s16_1xb8-300_camvid-160x224.py'


def resampler(type, **kwargs):
    return {
        'model.decode_head.resampler': dict(_delete_=True, type=type, **kwargs)
    }


axes = dict(
    resampler=dict(
        bilinear=resampler('Interpolate', mode='bilinear'),
        carafe=resampler('CARAFE', scale_factor=4),
        dysample=resampler('DySample', scale_factor=4),
        fade=resampler('FADE', gate=False),
        sapa=resampler('SAPA'),
        flow_align=resampler('FlowAlign'),
        jafar=resampler('JAFAR'),
        anyup=resampler('AnyUp'),
        naf=resampler('NAF'),
        loftup=resampler('LoftUp', convention='loftup'),
        joint_bilateral=resampler('JointBilateral')))
seeds = [0, 1, 2, 3, 4, 5]
compare = 'resampler'
metric = 'mIoU'
evaluators = dict(
    boundary=dict(
        type='BoundaryIoUMetric', widths=[1, 2, 3, 5], frame=False))
family = [dict(resampler='jafar', evaluation='own')]
speed = dict(channels_last=True, fold_norms=True)
sequences = r'^[^_]+'  # the test images are frames of 0001TP and Seq05VD
