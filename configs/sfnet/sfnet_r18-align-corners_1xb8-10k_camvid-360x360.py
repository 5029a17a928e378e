_base_ = './sfnet_r18_1xb8-10k_camvid-360x360.py'
model = dict(decode_head=dict(align_corners=True))
