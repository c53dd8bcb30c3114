"""What the published weights were trained with: the mean and spread of ImageNet's pixels."""

from __future__ import annotations

# Of red, green and blue in 0..1; `keras.applications.imagenet_utils`, mode "torch".
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Of blue, green and red in 0..255; mode "caffe".
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
