"""``TTASegmentor``: the average over test-time augmentations, for one output channel too."""

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel
from mmseg.registry import MODELS
from mmseg.utils import SampleList


@MODELS.register_module()
class TTASegmentor(SegTTAModel):
    """mmseg's ``SegTTAModel``, with the labels of one-channel heads.

    Their ``seg_logits`` are probabilities already. ``SegTTAModel`` takes the sigmoid of those, which is at least 0.5
    and so above mmseg's threshold of 0.3: everything becomes foreground.
    """

    def merge_preds(self, data_samples_list: list[SampleList]) -> SampleList:
        if self.module.out_channels > 1:
            return super().merge_preds(data_samples_list)
        for samples in data_samples_list:
            probability = torch.stack([sample.seg_logits.data for sample in samples]).mean(0)
            labels = (probability > self.module.decode_head.threshold).to(probability)
            samples[0].pred_sem_seg = PixelData(data=labels)
        return [samples[0] for samples in data_samples_list]
