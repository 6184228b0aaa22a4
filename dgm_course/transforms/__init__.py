"""Invertible transforms. One direction: `z, log_det = transform(x)` and `x, log_det = transform.inverse(z)`."""

from dgm_course.transforms.base import Compose, Inverse, Transform
from dgm_course.transforms.coupling import Additive, Affine, Coupling, MaskedCoupling
from dgm_course.transforms.image import Logit, MultiScale, Squeeze, channel_mask, checkerboard_mask
from dgm_course.transforms.linear import Permute, Rescale, Standardize

__all__ = [
    "Additive",
    "Affine",
    "Compose",
    "Coupling",
    "Inverse",
    "Logit",
    "MaskedCoupling",
    "MultiScale",
    "Permute",
    "Rescale",
    "Squeeze",
    "Standardize",
    "Transform",
    "channel_mask",
    "checkerboard_mask",
]
