_base_ = './sfnet_r18_1xb8-1k_shapes-128x128.py'
model = dict(decode_head=dict(align_corners=True))
