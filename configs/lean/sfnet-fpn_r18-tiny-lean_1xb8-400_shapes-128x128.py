# A pyramid down to stride 32, without logits at the size of the image.
_base_ = '../shapes/sfnet-fpn_r18-tiny_1xb8-400_shapes-128x128.py'
model = dict(type='LeanSegmentor')
