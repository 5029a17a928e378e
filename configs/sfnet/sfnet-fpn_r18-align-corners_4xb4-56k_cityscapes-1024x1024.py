_base_ = './sfnet-fpn_r18_4xb4-56k_cityscapes-1024x1024.py'
model = dict(decode_head=dict(align_corners=True))
