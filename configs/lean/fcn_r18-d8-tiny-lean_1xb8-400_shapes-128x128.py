# The network of most Shapes studies, without logits at the size of the image. A training step takes three quarters of the
# time.
_base_ = '../shapes/fcn_r18-d8-tiny_1xb8-400_shapes-128x128.py'
model = dict(type='LeanSegmentor')
