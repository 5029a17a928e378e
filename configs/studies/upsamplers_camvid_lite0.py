# Which upsampler gets most out of frozen features, on photographs? EfficientNet-Lite0 with ImageNet weights, features of
# stride 16 brought to stride 4, a linear layer: a probe, as papers on upsamplers guided by the image have it. And does their
# registration matter: the features begin 15 pixels inside the image, published code takes them to begin at 7.5, `exact`
# knows where they are.
# Declared is JAFAR against bilinear, and what registration does to JAFAR. 84 runs of two to four minutes on a CPU core.
# It needs `pip install "mmseg_resample[pretrained]"` and `python tools/prepare_camvid.py --half data/camvid`.
base = '../guided/probe_lite0-s16_1xb8-300_camvid-160x224.py'


def resampler(type, policy=None, **kwargs):
    cfg = dict(_delete_=True, type=type, **kwargs)
    return {'model.decode_head.resampler': cfg} | (
        dict(policy=policy) if policy else {})


axes = dict(
    resampler=dict(
        bilinear=resampler('Interpolate', mode='bilinear'),
        exact=resampler('Interpolate', mode='bilinear', policy='exact'),
        carafe=resampler('CARAFE', scale_factor=4),
        dysample=resampler('DySample', scale_factor=4),
        fade=resampler('FADE', gate=False),
        sapa=resampler('SAPA'),
        flow_align=resampler('FlowAlign'),
        jafar=resampler('JAFAR'),
        jafar_exact=resampler('JAFAR', policy='exact'),
        anyup=resampler('AnyUp'),
        naf=resampler('NAF'),
        loftup=resampler('LoftUp', convention='loftup'),
        loftup_exact=resampler('LoftUp', policy='exact'),
        joint_bilateral=resampler('JointBilateral')))
seeds = [0, 1, 2, 3, 4, 5]
compare = 'resampler'
metric = 'mIoU'
evaluators = dict(
    boundary=dict(
        type='BoundaryIoUMetric', widths=[1, 2, 3, 5], frame=False))
family = [dict(resampler='jafar', evaluation='own')]
sequences = r'^[^_]+'  # the test images are frames of 0001TP and Seq05VD
