"""What published weights were trained with: mean and spread of the pixels of ImageNet and CLIP."""

from __future__ import annotations

# Of red, green and blue in 0..1; `keras.applications.imagenet_utils`, mode "torch".
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Of blue, green and red in 0..255; mode "caffe".
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
# Of red, green and blue in 0..1; OpenAI's CLIP and OpenCLIP.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
